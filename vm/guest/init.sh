#!/bin/busybox sh
# PID 1 of the guest, in its initramfs: lays a writable tmpfs over the host's file system, read
# only, and makes that the root. What the guest writes is gone when it ends.

/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

# The kernel passes `vm_trial=1` on as a variable: all that was asked is whether a kernel boots.
if [ -n "$vm_trial" ]; then
  echo 'vm: trial boot reached user space'
  poweroff -f
fi

fail() {
  echo "vm: $1"
  poweroff -f
}

. /vm/job.sh # sets modules, shares, keep, init, root

insmod /vm/overlay.ko || fail 'the overlay module could not be loaded'
mkdir /lower /upper /new-root /new-tmp
mount -t virtiofs -o ro host /lower || fail "the host's file system could not be mounted"
mount -t tmpfs -o mode=755,size=75% upper /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /new-root ||
  fail 'the overlay could not be mounted'

mkdir -p "/new-root/lib/modules/$(uname -r)"
mount --bind "/new-root$modules" "/new-root/lib/modules/$(uname -r)" ||
  fail "the kernel's modules are not visible in the guest: $modules"

# The guest has a /tmp of its own, but for folders that the command must find there.
mount -t tmpfs -o mode=1777 tmp /new-tmp
echo "$keep" | while IFS= read -r dir; do
  [ -n "$dir" ] || continue
  mkdir -p "/new-tmp${dir#/tmp}"
  mount --bind "/new-root$dir" "/new-tmp${dir#/tmp}" || fail "not visible in the guest: $dir"
done
mount --move /new-tmp /new-root/tmp

echo "$shares" | while IFS= read -r share; do
  [ -n "$share" ] || continue
  tag=${share%% *} dir=${share#* }
  mkdir -p "/new-root$dir"
  mount -t virtiofs "$tag" "/new-root$dir" || fail "the shared folder could not be mounted: $dir"
done

mount --move /proc /new-root/proc
mount --move /sys /new-root/sys
mount --move /dev /new-root/dev
mount -t tmpfs -o mode=755 run /new-root/run
mkdir /new-root/run/vm
cp /bin/busybox /vm/* /new-root/run/vm/

systemd() {
  # What this machine has enabled is of no use in the guest; `root` may enable something.
  rm -rf /new-root/etc/systemd/system /new-root/etc/fstab
  mkdir -p /new-root/etc/systemd/system /new-root/run/systemd/system/multi-user.target.wants
  cp /vm/vm-session.service /new-root/run/systemd/system/
  wants=/new-root/run/systemd/system/multi-user.target.wants
  ln -s ../vm-session.service "$wants/"
  ln -s /lib/systemd/system/remote-fs.target "$wants/" # enabled in every Debian
  for unit in getty.target systemd-logind.service systemd-firstboot.service; do
    ln -s /dev/null "/new-root/run/systemd/system/$unit"
  done
  # An emulated guest stands still at times, and systemd's limits are for machines that do not.
  mkdir -p /new-root/run/systemd/system.conf.d
  printf '[Manager]\nDefaultTimeoutStartSec=10min\nDefaultDeviceTimeoutSec=10min\n' \
    >/new-root/run/systemd/system.conf.d/vm.conf
  # Without an id, systemd would take this for the first boot, and enable all that its presets name.
  echo 0123456789abcdef0123456789abcdef >/new-root/etc/machine-id
}

[ "$init" != systemd ] || systemd
[ -z "$root" ] || cp -a "/lower$root/." /new-root/ || fail "the folder could not be laid over: $root"
[ "$init" != systemd ] || exec switch_root /new-root /lib/systemd/systemd
exec switch_root /new-root /bin/sh /run/vm/session.sh
