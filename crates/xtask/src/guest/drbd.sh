# One of two DRBD nodes, in a guest of its own: `drbd.sh ROLE PACKAGE WRITES SPAN`.
#   active  writes, says DRBD-WROTE while it goes on writing, and loses its power then
#   peer    sees it go, takes over, and says how much is copied when it returns
#   return  is the node that lost its power, and starts again from its disk
# Everything that is not named here is DRBD's default.
set -eu
role=$1 package=$2 writes=$3 span=$4
dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C /
modprobe drbd usermode_helper=/bin/true

node=active address=10.77.0.1
[ "$role" != peer ] || node=peer address=10.77.0.2
echo "$node" >/proc/sys/kernel/hostname
ip address add "$address/24" dev eth0
ip link set eth0 up
cat >/etc/drbd.conf <<END
global { usage-count no; }
resource r0 {
  net { protocol C; }
  device /dev/drbd0;
  disk /dev/vda;
  meta-disk internal;
  on active { address 10.77.0.1:7788; }
  on peer { address 10.77.0.2:7788; }
}
END

# Looks until a condition holds, for five minutes at most.
until_true() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 1500 ]; then
      echo "waited in vain until $*"
      cat /proc/drbd
      exit 1
    fi
    sleep 0.2
  done
}
says() { grep -q "$1" /proc/drbd; }
says_not() { ! says "$1"; }
written() { sed -n 's/.* dw:\([0-9]*\) .*/\1/p' /proc/drbd; }
wrote_more_than() { [ "$(written)" -gt "$1" ]; }
to_sync() { dmesg | sed -n 's/.*(will sync \([0-9]*\) KB .*/\1/p' | tail -n 1; }
knows_what_to_sync() { [ -n "$(to_sync)" ]; }
random_writes() {
  fio --name=work --filename=/dev/drbd0 --direct=1 --ioengine=libaio --rw=randwrite --bs=4096 --iodepth=32 \
    --size="$span" --norandommap --eta=never --output=/dev/null "$@"
}

if [ "$role" != return ]; then
  drbdadm create-md --force r0 >/dev/null 2>&1
fi
drbdadm up r0
case $role in
active)
  until_true says 'cs:Connected'
  drbdadm new-current-uuid --clear-bitmap r0
  until_true says 'ds:UpToDate/UpToDate'
  drbdadm primary r0
  random_writes --number_ios="$writes"
  before=$(written)
  random_writes --rate_iops=100 --randseed=2 --time_based --runtime=600 &
  until_true wrote_more_than "$before"
  grep version /proc/drbd
  echo DRBD-WROTE
  wait
  ;;
peer)
  until_true says 'ds:UpToDate/UpToDate'
  until_true says_not 'cs:Connected'
  until_true drbdadm primary r0
  until_true knows_what_to_sync
  echo "DRBD-KIB $(to_sync)"
  ;;
return)
  until_true says 'cs:Sync'
  sleep 600
  ;;
esac
