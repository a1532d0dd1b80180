set -u
udevadm control --exit
cd /work/wt/nbd
run() {
  name=$1; depth=$2; bs=$3; n=$4; rw=$5; shift 5
  iops=$(fio --name=x --rw=$rw --bs=$bs --iodepth=$depth --number_ios=$n --norandommap=1 --randrepeat=1 --minimal --terse-version=3 --allow_file_create=0 "$@" 2>/tmp/err | awk -F';' -v rw=$rw '{ if (rw ~ /read/) print $8; else print $49 }')
  [ -n "$iops" ] || cat /tmp/err
  echo "RESULT $name qd$depth $bs $rw: $(awk -v "i=$iops" 'BEGIN { if (i>0) print 1e9/i; else print "?" }') instructions"
}
S=/tmp/nbd.sock
nbdkit -U $S memory 256M
nbdkit -p 10809 -i 127.0.0.1 memory 256M
sleep 1
dev="--direct=1 --ioengine=libaio --size=200M"
one() {
  name=$1; shift
  run $name 1 4k 800 randread "$@"
  run $name 32 4k 4000 randread "$@"
  run $name 32 4k 4000 randwrite "$@"
  run $name 16 128k 400 randread "$@"
}
stats() { node dist/cli/main.js info 0 --json | tr ',' '\n' | grep -E '"(reads|writes|enters)"' | tr '\n' ' '; echo; }
ublk() {
  name=$1; shift
  node dist/cli/main.js add nbd "$@" --background >/dev/null || echo failed
  one $name $dev --filename=/dev/ublkb0
  node dist/cli/main.js stop 0 >/dev/null
}
ublk unix-per-io "nbd+unix:///?socket=$S" --exchange per-io
ublk unix-batch "nbd+unix:///?socket=$S" --exchange batch
ublk tcp-per-io "nbd://127.0.0.1" --exchange per-io
modprobe nbd nbds_max=1 && nbd-client 127.0.0.1 10809 /dev/nbd0 -b 512 >/dev/null && one kernel-tcp $dev --filename=/dev/nbd0
nbd-client -d /dev/nbd0 >/dev/null
one fio-unix --ioengine=nbd "--uri=nbd+unix:///?socket=$S" --size=200M
