# PID 1 of the guest, once the host's tree is its root, or a service of systemd: the few services that
# programs count on, then the command, then its exit status. Ports: 1 stdout, 2 stderr, 3 what the host must know.

. /run/vm/job.sh # sets modules, shares, keep, limit, init, steady, terminal
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
busybox=/run/vm/busybox

prepare() {
  ln -s /proc/self/fd /dev/fd
  ln -s /proc/self/fd/0 /dev/stdin
  ln -s /proc/self/fd/1 /dev/stdout
  ln -s /proc/self/fd/2 /dev/stderr
  mkdir -p /dev/pts /dev/shm
  mount -t devpts -o mode=600,ptmxmode=666 devpts /dev/pts
  mount -t tmpfs -o mode=1777 shm /dev/shm
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mount -t debugfs debugfs /sys/kernel/debug
  mount -t tracefs tracefs /sys/kernel/tracing

  modprobe configfs
  mount -t configfs configfs /sys/kernel/config
  /lib/systemd/systemd-udevd --daemon
  modprobe virtio_blk # for --disk
  modprobe ublk_drv || echo 'vm: this kernel has no ublk_drv module'
}

[ "$init" = systemd ] || prepare
$busybox hostname vm
$busybox ifconfig lo 127.0.0.1 up
ulimit -n 1048576

# The kernel rewrites io_submit_sqes() when the first ring that has an SQ array comes and when the
# last has gone (io_key_has_sqarray). Emulated processors may meet that half done, and panic with
# int3. So here is one that stays: io_uring_setup(2, {0}).
perl -e 'my $params = "\0" x 120; syscall(425, 2, $params); sleep' &

exec 3>/dev/vport0p3

# Calibrated on a busy host, a clock was seen to run ten times too fast, and all time limits with it.
modprobe -q rtc_cmos
rtc=$(cat /sys/class/rtc/rtc0/since_epoch 2>/dev/null)
if [ -n "$steady" ] && [ -n "$rtc" ]; then
  drift=$(($(date +%s) - rtc))
  if [ "${drift#-}" -gt 3 ]; then
    echo "clock $drift" >&3
    while :; do $busybox sleep 3600; done # until the host ends the machine
  fi
fi
echo up >&3

# Asked for by the host's time limit: which tasks hang, and where, on the console.
if [ "$limit" -gt 0 ]; then
  (
    exec 3>&-
    $busybox sleep "$limit"
    echo 8 >/proc/sys/kernel/printk
    echo w >/proc/sysrq-trigger
  ) &
fi

if [ -n "$terminal" ]; then
  stty -F /dev/hvc0 $terminal
  setsid -c /bin/sh /run/vm/command.sh </dev/hvc0 >/dev/hvc0 2>&1 3>&-
  status=$?
else
  # Through pipes: a port can be opened only once, so `> /dev/stderr` would fail on one.
  mkfifo /run/vm/out /run/vm/err
  $busybox cat /run/vm/out 3>&- >/dev/vport0p1 &
  out=$!
  $busybox cat /run/vm/err 3>&- >/dev/vport0p2 &
  err=$!
  setsid /bin/sh /run/vm/command.sh </dev/null >/run/vm/out 2>/run/vm/err 3>&- &
  wait $!
  status=$?

  # Whatever the command left running holds its output open: end it, so that cat sees the end.
  [ "$init" = systemd ] || for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    [ "$pid" -gt 1 ] && [ "$pid" != "$out" ] && [ "$pid" != "$err" ] && kill -9 "$pid"
  done 2>/dev/null
  # A process stuck in the kernel cannot be ended; the host must not wait for it.
  ($busybox sleep 5 && kill "$out" "$err") 3>&- &
  wait "$out" "$err"
fi

echo "$shares" | while IFS= read -r share; do
  [ -z "$share" ] || $busybox sync -f "${share#* }"
done
# With systemd the machine ends as a machine does, unless the command wants it to be reset.
if [ "$init" = systemd ] && [ ! -e /run/vm/reset ]; then
  echo "down $status" >&3
  exec systemctl --no-block poweroff
fi
echo "exit $status" >&3
while :; do $busybox sleep 3600; done # the host ends the machine: a shutdown could hang on a device
