#!/bin/busybox sh
# The first process of a guest: makes this machine's files its own, with everything that is written kept in memory.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/m/$module"; done </modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower
mount -t tmpfs tmpfs /upper
mkdir /upper/up /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/up,workdir=/upper/work overlay /root
for place in proc sys dev; do
  mkdir -p "/root/$place"
  mount --move "/$place" "/root/$place"
done
mkdir -p /root/dev/shm /root/dev/pts
mount -t tmpfs -o mode=1777,size=80% shm /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs run /root/run
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
# A word of the kernel's command line.
word() { sed -n "s/.*$1=\([^ ]*\).*/\1/p" /root/proc/cmdline; }
mkdir -p /root/lib/modules
mount --bind "/root$(word backstay.modules)" /root/lib/modules
script=$(word backstay.run)
exec switch_root /root /bin/sh "$script"
