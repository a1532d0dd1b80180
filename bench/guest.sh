# What runs beside the device under test: shell functions and fio, nothing that costs time of its
# own. script.ts writes the calls; what they print, transcript.ts reads:
#
#   @kernel RELEASE          @fio VERSION
#   @row INDEX               followed by @counters (twice, if the server has any), @cpu (twice),
#                            @memory KIB, @result and fio's JSON up to @end; or by @failed WHY
#
# Everything it makes in the kernel has a name of its own and is gone when it ends.

nullb=/sys/kernel/config/nullb
dir=$(mktemp -d)
server=
others_process=
touch=randrw
loop=
made=
tuned=
files=
hugepages=$(cat /proc/sys/vm/nr_hugepages)

trap finish EXIT
trap 'exit 129' HUP INT TERM
trap '' PIPE # a server that died is a failed row, not the end

# A null_blk device: name, 1 if it keeps data. Sets $made. (A modprobe with parameters would do
# nothing where null_blk is loaded already, and leave /dev/nullb0 a plain file that dd makes.)
make_null_blk() {
  mkdir "$nullb/$1" || exit 1
  for pair in size=1024 memory_backed=$2 blocksize=512 queue_mode=2 irqmode=0 submit_queues=2; do
    echo "${pair#*=}" >"$nullb/$1/${pair%=*}" || exit 1
  done
  echo 1 >"$nullb/$1/power" || exit 1
  made=/dev/$1
  [ -b "$made" ] || made=/dev/nullb$(cat "$nullb/$1/index")
  [ -b "$made" ] || { echo "@failed no block device for $nullb/$1"; exit 1; }
}

prepare() {
  [ "$(id -u)" = 0 ] || { echo "@failed only root can make the devices it measures"; exit 1; }
  echo "@kernel $(uname -r)"
  echo "@fio $(fio --version)"
  [ -z "$UBLK_VM" ] || quieten
  modprobe ublk_drv && modprobe loop && modprobe null_blk nr_devices=0 || exit 1
  make_null_blk ublkbench0 1
  backing=$made
  export backing
  make_null_blk ublkbench1 0
  nothing=$made
  dd if=/dev/zero of="$backing" bs=1M count=256 oflag=direct 2>/dev/null || exit 1
  # Data of large requests lies in huge pages: chance would decide how many pieces it is in.
  echo $((hugepages + 32)) >/proc/sys/vm/nr_hugepages
}

# Sends home what works in the background of a machine that is ours alone.
quieten() {
  # It would read every device that was written to, as soon as fio closes it.
  udevadm control --exit
  # It moves pages together every ten seconds, in whichever row is then being measured.
  echo 100000000 >/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs
}

finish() {
  trap - EXIT HUP INT TERM
  end
  for name in ublkbench0 ublkbench1; do
    [ ! -d "$nullb/$name" ] || rmdir "$nullb/$name"
  done
  echo "$hugepages" >/proc/sys/vm/nr_hugepages
  rm -rf "$dir"
}

# A file system on $backing until the subject ends, and the server works in it: `base` is written, `sparse`
# is as long.
with_files() {
  files=$dir/files
  mkdir "$files"
  mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$backing" && mount "$backing" "$files" &&
    dd if=/dev/zero of="$files/base" bs=1M count=256 oflag=direct 2>/dev/null &&
    truncate -s 256M "$files/sparse" && cd "$files" || echo "@failed no file system on $backing"
}

# Writes all blocks of $device in random order, over so many layers.
fill() {
  cd /
  part=0
  while [ $part -lt "$1" ]; do
    [ $part = 0 ] || { echo snapshot >&8 && read -r _ <&9; }
    part=$((part + 1))
    fio --output="$dir/fio" --name=fill --filename="$device" --ioengine=io_uring --direct=1 --bs=4k \
      --size=256M --rw=randwrite --iodepth=32 --number_ios=$((65536 / $1)) --randseed=$part ||
      echo "@failed fio: $(tail -n 3 "$dir/fio")"
  done
}

# The kernel's own loop driver over $backing. Sets $device.
begin_loop() {
  device=$(losetup --find --show --direct-io=on "$backing") || device=
  loop=$device
  touch_tags
}

# Settings of the queue of $backing, NAME=VALUE each, until the subject ends.
tune() {
  for pair; do
    setting=/sys/block/${backing##*/}/queue/${pair%=*}
    tuned="$tuned $setting=$(cat "$setting")"
    echo "${pair#*=}" >"$setting" || echo "@failed $setting cannot be ${pair#*=}"
  done
}

# This project's server: the program and its options. Sets $device.
begin_server() {
  mkfifo "$dir/ask" "$dir/answer"
  "$@" <"$dir/ask" >"$dir/answer" &
  server=$!
  exec 8>"$dir/ask" 9<"$dir/answer"
  case " $* " in *" read_only=1 "*) touch=randread ;; *) touch=randrw ;; esac
  device=
  read -r _ device <&9 # several are joined by colons, as fio wants them
  touch_tags
}

# Any other server: a command that ends when its device is there. $stop takes it down.
begin_other() {
  device=$1
  stop=$3
  sh -c "$2" >&2 || device=
  others_process=$(process_of "$4")
  touch_tags
}

# The process that runs a program, given by its path.
process_of() {
  for process in /proc/[0-9]*; do
    [ "$(readlink "$process/exe")" != "$1" ] || echo "${process#/proc/}"
  done | tail -n 1
}

# Every tag's memory is used once before anything is measured.
touch_tags() {
  [ -b "${device%%:*}" ] || return
  fio --output="$dir/fio" --name=touch --filename="$device" --ioengine=io_uring --direct=1 \
    --size=256M --rw=$touch --bs=4k --iodepth=256 --number_ios=1024
}

end() {
  if [ -n "$server" ]; then
    exec 8>&- 9<&-
    wait "$server"
    rm -f "$dir/ask" "$dir/answer"
  fi
  [ -z "$loop" ] || losetup --detach "$loop"
  [ -z "$stop" ] || sh -c "$stop" >&2
  for pair in $tuned; do
    echo "${pair#*=}" >"${pair%=*}"
  done
  if [ -n "$files" ]; then
    umount "$files" && rmdir "$files"
    dd if=/dev/zero of="$backing" bs=1M count=256 oflag=direct 2>/dev/null
  fi
  # Whoever comes next finds huge pages, or not, whatever ran before.
  [ -z "$UBLK_VM" ] || echo 1 >/proc/sys/vm/compact_memory
  server= loop= stop= others_process= tuned= touch=randrw files=
}

# One measurement of $device: index, warm-up I/Os, measured I/Os or seconds, fio's options.
# Both parts run in one fio: the first I/Os of a device are dearer than all later ones.
row() {
  echo "@row $1"
  warm=$2 main=$3
  shift 3
  [ -b "${device%%:*}" ] || { echo "@failed the device did not come up"; return; }
  counters
  cpu
  fio --output="$dir/fio" --output-format=json --filename="$device" --ioengine=io_uring --direct=1 \
    --size=256M --group_reporting --lat_percentiles=1 --clat_percentiles=0 "$@" --name=warm $warm --name=main --stonewall $main 2>&1 ||
    { echo "@failed fio: $(tail -n 3 "$dir/fio" | tr '\n' ' ')"; return; }
  cpu
  counters
  memory
  echo @result
  cat "$dir/fio"
  echo @end
}

# Where the instructions of one row go: the program that can mark, I/Os, fio's options. Of two runs
# between marks the second is twice as long: what it has more is the I/Os alone.
profile() {
  program=$1 count=$2
  shift 2
  [ -b "${device%%:*}" ] || { echo "@failed the device did not come up"; exit 1; }
  symbols
  "$program" mark
  for ios in "$count" $((2 * count)); do
    fio --output="$dir/fio" --name=main --filename="$device" --ioengine=io_uring --direct=1 \
      --size=256M "$@" --number_ios="$ios" || { echo "@failed fio: $(tail -n 3 "$dir/fio")"; exit 1; }
    "$program" mark
  done
}

# The addresses of the kernel's functions, and of the server's code.
symbols() {
  echo @symbols
  cat /proc/kallsyms
  echo @end
  process=${server:-$others_process}
  [ -n "$process" ] || return
  echo @maps
  cat "/proc/$process/maps"
  echo @end
}

counters() {
  [ -n "$server" ] || return
  echo >&8
  read -r line <&9
  echo "@counters $line"
}

cpu() {
  read -r line </proc/stat
  echo "@cpu $line"
}

memory() {
  [ -n "$server" ] || return
  while read -r key value _; do
    [ "$key" != VmRSS: ] || echo "@memory $value"
  done <"/proc/$server/status"
}
