# What a guest with systemd does in one boot: `sh guest.sh STEP`. Prints what is looked at afterwards.
# /srv is /dev/vda, and keeps the image of the disk `data`, which ublk.service serves and fstab mounts.
set -eu
ublk="node $(dirname "$(readlink -f "$0")")/../../dist/cli/main.js"

say() { echo "guest: $*"; }
fail() {
  say "FAILED: $*"
  systemctl status ublk.service data.mount --no-pager --lines 20 || true
  journalctl -b --no-pager -u ublk.service | tail -40
  exit 1
}
main_pid() { systemctl show -P MainPID ublk.service; }
until_true() { # for what must come, however slow the machine
  tries=600
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "never came: $*"
    sleep 0.2
  done
}
said_in_use() { journalctl -b -o cat -u ublk.service | grep -q 'is in use: mounted on /data'; }
has_stopped() { [ "$(systemctl show -P ActiveState ublk.service)" = inactive ]; }
upgrades_on_reload() { # systemctl reload starts a new server from now on
  $ublk service install /etc/ublk/ublk.toml --upgrade-on-reload --prefix /run/again >/run/install
  mkdir -p /run/systemd/system/ublk.service.d
  { echo '[Service]'; echo ExecReload=; grep '^ExecReload=' /run/again/etc/systemd/system/ublk.service
  } >/run/systemd/system/ublk.service.d/reload.conf
  systemctl daemon-reload
}
upgrade() {
  server=$(main_pid)
  systemctl reload ublk.service
  is_new_server "$server" || fail 'the reload has not started a new server'
  [ ! -e "/proc/$server" ] || until_true [ ! -e "/proc/$server" ]
  grep -q ublk.service "/proc/$(main_pid)/cgroup" || fail 'the new server is not of the service'
}
is_new_server() { [ "$(main_pid)" != "$1" ] && systemctl -q is-active ublk.service; }

# The first boot, without systemd: disks, configuration, and what `ublk service install` writes.
prepare() {
  mkfs.ext4 -q /dev/vda
  mount /dev/vda /srv
  truncate -s 512M /srv/data.img
  mkfs.ext4 -q -F /srv/data.img
  mkdir -p "$1/etc/systemd/system/multi-user.target.wants" "$1/data" /etc/ublk
  cat >/etc/ublk/ublk.toml <<'TOML'
[devices.data]
target = { kind = "file", path = "/srv/data.img" }
recovery = "reissue"
TOML
  $ublk service install /etc/ublk/ublk.toml --prefix "$1"
  cp -r /etc/ublk "$1/etc/"
  ln -s ../ublk.service "$1/etc/systemd/system/multi-user.target.wants/"
  cat >"$1/etc/fstab" <<'FSTAB'
/dev/vda /srv ext4 defaults 0 2
/dev/ublk/by-name/data /data ext4 nofail,_netdev,x-systemd.after=ublk.service 0 2
FSTAB
  umount /srv
}

# Whether the boot has brought everything, and the data of the boot before is there.
booted() {
  systemctl is-system-running --wait >/dev/null || fail "not running: $(systemctl --failed)"
  findmnt -n -o SOURCE,FSTYPE /data || fail 'not mounted'
  say "status: $(systemctl show -P StatusText ublk.service)"
  fsck=$(journalctl -b -o cat -u 'systemd-fsck@dev-ublk*')
  say "replayed journals: $(echo "$fsck" | grep -c 'recovering journal')"
  [ ! -e /data/sums ] || (cd /data && sha256sum --quiet -c sums) || fail 'data is lost'
}

# Synced data, which later boots look for.
write() {
  head -c 8M /dev/urandom >"/data/$1"
  (cd /data && sha256sum $(ls | grep '^file') >sums.new && mv sums.new sums)
  sync -f /data
}

# A whole life: reload, death, restart, stop; the end of the machine with the disk mounted.
life() {
  booted
  server=$(main_pid)
  write file1
  systemctl reload ublk.service
  [ "$(main_pid)" = "$server" ] || fail 'the reload has ended the server'

  # Written while the server is killed, and while it is restarted in order.
  (i=0; while [ ! -e /run/done ]; do i=$((i + 1)); head -c 1M /dev/urandom >/data/load; sync -f /data; done
    say "writes: $i") &
  load=$!
  kill -9 "$server"
  killed=$(date +%s%N)
  until_true is_new_server "$server"
  say "back after $((($(date +%s%N) - killed) / 1000000)) ms"
  server=$(main_pid)
  systemctl restart ublk.service
  is_new_server "$server" || fail 'not restarted'
  findmnt -n /data >/dev/null || fail 'unmounted by the restart'
  ! said_in_use || fail 'the restart has waited for users'
  upgrades_on_reload
  upgrade
  server=$(main_pid)
  kill -9 "$server"
  until_true is_new_server "$server"
  upgrade
  say "upgraded: $(systemctl show -P StatusText ublk.service)"
  touch /run/done
  wait "$load" || fail 'writes have failed'
  (cd /data && sha256sum --quiet -c sums) || fail 'data is lost'
  rm /run/done

  # Stopped while it is mounted, the service serves on until it is unmounted.
  systemctl stop --no-block ublk.service
  until_true said_in_use
  write file0
  [ "$(systemctl show -P ActiveState ublk.service)" = deactivating ] || fail 'stopped while mounted'
  umount /data
  until_true has_stopped
  journalctl -b -o cat -u ublk.service | grep -q 'waits for its next server' || fail 'not left'
  e2fsck -fn /srv/data.img >/run/guest-fsck 2>&1 || fail "fsck: $(cat /run/guest-fsck)"
  say 'fsck: clean'
  systemctl start data.mount ublk.service
  until_true mountpoint -q /data
  systemctl start data.mount
  write file2
  say 'life: done'
}

# After an end in order; the machine is then reset with the disk mounted.
reset() {
  booted
  write file3
  touch /run/vm/reset
  say 'reset: done'
}

# After everything: nothing is left but what was there.
look() {
  booted
  systemctl stop data.mount ublk.service
  e2fsck -fn /srv/data.img >/run/guest-fsck 2>&1 || fail "fsck: $(cat /run/guest-fsck)"
  say "left: $($ublk list --json | tr -d ' \n' | grep -o '"state":"[a-z]*"' | tr '\n' ' ')"
  $ublk delete 0 --force >/dev/null
  say "orphans: $($ublk list --json | tr -d ' \n'), records: $(ls /run/ublk | wc -l), names: $(ls /run/ublk-names | wc -l)"
}

"$@"
