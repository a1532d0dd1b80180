/// <reference types="node" preserve="true" />
/**
 * Serves targets without a kernel that has ublk, for tests: the same servers on a simulated
 * driver, with seeded faults and power cuts.
 *
 * @module ublk/testing
 */
export { SimulatedDisk } from './disk.ts';
export type { WriteOptions } from './disk.ts';
export type { Faults, InjectedFaults } from './faults.ts';
export { simulate } from './simulate.ts';
export type { SimulateOptions } from './simulate.ts';
