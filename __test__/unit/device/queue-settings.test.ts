import { expect, test } from 'vitest';

import { toNativeOptions } from '../../../src/options.ts';
import { parseQueueSettings } from '../../../src/queue-settings.ts';
import { targets } from '../../../src/targets/index.ts';

test('settings go to the addon as they are', () => {
  const queue = { scheduler: 'none', wbtLatUsec: -1, nomerges: 2, iostats: false } as const;
  const options = { target: targets.null({ size: '1M' }), queue };
  expect(toNativeOptions(options).queue).toEqual(queue);
});

test("the command line knows them by the kernel's names", () => {
  const pairs = ['scheduler=mq-deadline', 'wbt_lat_usec=0', 'iostats=0', 'max_sectors_kb=64'];
  expect(parseQueueSettings(pairs)).toEqual({
    scheduler: 'mq-deadline',
    wbtLatUsec: 0,
    iostats: false,
    maxSectorsKb: 64,
  });
});

test.each([
  ['wbtLatUsec=0', "'wbtLatUsec=0' is no setting of a queue"],
  ['nomerges', "'nomerges' is no setting of a queue"],
  ['toString=1', "'toString=1' is no setting of a queue"],
  ['nomerges=two', "nomerges is 'two'; it must be a whole number"],
  ['iostats=2', 'iostats is 2; it must be a whole number from 0 to 1'],
])('%s on the command line is refused', (pair, message) => {
  expect(() => parseQueueSettings([pair])).toThrow(message);
});
