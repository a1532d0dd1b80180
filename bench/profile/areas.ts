// What the kernel's functions are for, roughly: by their names. Pure.

import type { Folded } from './tree.ts';

/** The first that matches counts. */
const AREAS: readonly (readonly [area: string, names: RegExp])[] = [
  ['ublk driver', /ublk/],
  ['loop driver', /^(lo|loop)_/],
  ['disk in memory', /^(null_|__null_|__radix_tree|radix_tree|memcpy)/],
  ['workqueues', /work(er|queue|_on)|process_one_work|^(pwq|kick_pool|insert_work|__queue_work)/],
  [
    'sleep and wake-up',
    /sched|switch|enqueue|dequeue|wake|ttwu|idle|psi|rcu_note|load_avg|update_(curr|rq|se)|pick_|entity|task_fair|cpuacct|hrtick|tick_|resched|record_times|vruntime|smp_call|IPI|irq|migrate|rq_cpu|native_load_tls|fpregs|cpus_share/,
  ],
  ['clocks', /ktime|clock|timer|tsc|timekeep/],
  ['system calls', /SYSCALL|syscall|sys_call|^__x64_sys|prandom_u32|__do_sys|sysret|SYSRET/],
  ['io_uring', /^_*io_(?!schedule)|uring/],
  ['block layer', /blk|bio|sbitmap|elv_|wbt|rq_qos|io_ticks|plug|submit_/],
  ['files', /vfs|rw_verify|security|^aa_|apparmor|_file|kiocb|atime|current_time|^fget|^fput|lsm/],
  ['memory', /kmem|mempool|page|gup|folio|iov_iter|memcg|alloc|free|_pte|zap|copy_(to|from)/],
];

/** Instructions by area: `client`, `server`, and what of the kernel they are in; greatest first. */
export function byArea(instructions: Folded): Record<string, number> {
  const areas = new Map<string, number>();
  for (const [stack, count] of instructions) {
    const [owner = '', name = ''] = stack.split(';');
    const area = owner.startsWith('kernel') ? areaOf(name) : `${owner}'s own code`;
    areas.set(area, (areas.get(area) ?? 0) + count);
  }
  return Object.fromEntries([...areas].sort(([, one], [, two]) => two - one));
}

function areaOf(name: string): string {
  return AREAS.find(([, names]) => names.test(name))?.[0] ?? 'rest of the kernel';
}
