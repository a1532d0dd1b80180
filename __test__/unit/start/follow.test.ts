import { expect, test } from 'vitest';
import { JobFollower } from '../../../scripts/start/follow.ts';
import type { Message } from '../../../scripts/start/protocol.ts';

const line = (message: Message) => `${JSON.stringify(message)}\n`;

test('messages settle what is waited for, also when they come in pieces or early', async () => {
  const follower = new JobFollower();
  const shown: string[] = [];
  const text = line({ hello: true }) + line({ step: 'copy', done: 'x' });
  follower.output.write(text.slice(0, 5));
  follower.output.write(text.slice(5));
  await follower.hello;
  expect(await follower.step('copy', () => {})).toBe('x');
  const verify = follower.step('verify', (share) => shown.push(share));
  follower.output.write(line({ step: 'verify', progress: '5 %' }));
  follower.output.write(line({ step: 'verify', done: 'y' }));
  expect(await verify).toBe('y');
  expect(shown).toEqual(['5 %']);
});

test('a failure ends all that is waited for and all that will be, with the first reason', async () => {
  const follower = new JobFollower();
  const copy = follower.step('copy', () => {});
  follower.output.write(line({ failed: 'the disk is full' }));
  follower.fail(new Error('status 1'));
  await expect(copy).rejects.toThrow('the disk is full');
  await expect(follower.step('verify', () => {})).rejects.toThrow('the disk is full');
  await expect(follower.result).rejects.toThrow('the disk is full');
});

test('what was done before a failure stays done', async () => {
  const follower = new JobFollower();
  follower.output.write(line({ step: 'copy', done: 'x' }) + line({ failed: 'no' }));
  expect(await follower.step('copy', () => {})).toBe('x');
});

test('output that is no message is a failure', async () => {
  const follower = new JobFollower();
  follower.output.write('Segmentation fault\n');
  await expect(follower.hello).rejects.toThrow(/Segmentation fault/);
});
