/// <reference types="node" preserve="true" />
/**
 * Serves targets without ublk in the kernel, for tests: the real server on a simulated driver, with
 * seeded faults and power cuts.
 *
 * @module ublk/testing
 */
export { SimulatedDisk } from './disk.ts';
export type { WriteOptions } from './disk.ts';
export type { Faults, InjectedFaults } from './faults.ts';
export { simulate } from './simulate.ts';
export type { SimulateOptions } from './simulate.ts';
