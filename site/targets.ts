/**
 * The functions of the object `targets`: `targets.null(…)`, `targets.file(…)` and so on.
 *
 * @module targets
 */
export { delayTarget as delay } from '../src/targets/delay.ts';
export { errorTarget as error } from '../src/targets/error.ts';
export { fileTarget as file } from '../src/targets/file.ts';
export { linearTarget as linear } from '../src/targets/linear.ts';
export { nbdTarget as nbd } from '../src/targets/nbd.ts';
export { qcow2Target as qcow2 } from '../src/targets/qcow2.ts';
export { nullTarget as null } from '../src/targets/null.ts';
export { overlayTarget as overlay } from '../src/targets/overlay.ts';
export { httpTarget as http } from '../src/targets/http.ts';
export { rbdTarget as rbd } from '../src/targets/rbd.ts';
export { stripedTarget as striped } from '../src/targets/striped.ts';
export { zonedTarget as zoned } from '../src/targets/zoned.ts';
