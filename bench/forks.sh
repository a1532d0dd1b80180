# Copy-on-write disks of others over ext4, each on a raw image of 256 MiB: `sh forks.sh BEGIN|END`.

folder=/tmp/ublkbench-files

# A file system on $backing with the image.
begin_files() {
  mkdir "$folder" &&
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$backing" && mount "$backing" "$folder" &&
    cd "$folder" && dd if=/dev/zero of=base bs=1M count=256 oflag=direct 2>/dev/null
}

end_files() {
  cd / && umount "$folder" && rmdir "$folder" &&
    dd if=/dev/zero of="$backing" bs=1M count=256 oflag=direct 2>/dev/null
}

has_ended() {
  ! pidof qemu-nbd >/dev/null
}

# Ten seconds at most.
wait_until() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || return
    sleep 0.1
  done
}

case $1 in
begin-dm-snapshot)
  modprobe dm-snapshot && begin_files && truncate -s 320M cow || exit
  base=$(losetup --find --show --direct-io=on base) && cow=$(losetup --find --show --direct-io=on cow) || exit
  # Chunks of 4 KiB; the table of chunks is not kept, which is cheaper.
  # Without udevd, which was sent home, nobody would answer.
  dmsetup create --noudevsync --noudevrules --verifyudev ublkbench-fork --table "0 $((256 * 2048)) snapshot $base $cow N 8"
  ;;
end-dm-snapshot)
  dmsetup remove --noudevsync --noudevrules ublkbench-fork
  losetup --detach-all && end_files
  ;;
begin-qcow2)
  modprobe nbd && begin_files &&
    qemu-img create -q -f qcow2 -b base -F raw fork.qcow2 &&
    qemu-nbd --connect=/dev/nbd0 --socket=/tmp/ublkbench.sock --cache=none --aio=io_uring --discard=unmap fork.qcow2 || exit
  wait_until test -s /sys/block/nbd0/pid
  ;;
end-qcow2)
  qemu-nbd --disconnect /dev/nbd0
  wait_until has_ended
  end_files
  ;;
esac
