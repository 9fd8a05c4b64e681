use super::*;
use crate::disk::fault::{Fault, Faults};
use crate::disk::{Disk, OpenOptions};
use crate::scratch::Scratch;
use rustix::io::Errno;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use wire::Duration;

const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Threads];

fn disk(scratch: &Scratch, len: u64, fault: bool) -> Arc<Disk> {
    let path = scratch.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(len).unwrap();
    let fault_dir = fault.then(|| scratch.path().join("fault"));
    Arc::new(
        Disk::open(
            &path,
            &OpenOptions {
                fault_dir,
                ..OpenOptions::default()
            },
        )
        .unwrap(),
    )
}

fn run(ring: &mut Ring, op: Op) -> Completion {
    ring.submit(7, op);
    let mut done = Vec::new();
    ring.wait(1, Some(clock::now() + Duration::from_secs(10)), &mut done)
        .unwrap();
    let completion = done.pop().expect("completes in time");
    assert_eq!(completion.token, 7);
    completion
}

fn filled(byte: u8, len: usize) -> Frozen {
    let mut buf = Buf::new(len);
    buf.fill(byte);
    buf.freeze()
}

fn read(ring: &mut Ring, disk: &Arc<Disk>, offset: u64, len: usize) -> Buf {
    let op = Op::Read {
        disk: Arc::clone(disk),
        offset,
        buf: Buf::new(len),
    };
    let completion = run(ring, op);
    assert_eq!(completion.result.unwrap(), u32::try_from(len).unwrap());
    completion.buf.unwrap()
}

#[test]
fn what_is_written_is_read() {
    for backend in BACKENDS {
        let scratch = Scratch::new("ring-rw");
        let disk = disk(&scratch, 8 << 20, false);
        let mut ring = Ring::new(Some(backend)).unwrap();
        assert_eq!(ring.backend(), backend);
        for durable in [false, true] {
            let op = Op::Write {
                disk: Arc::clone(&disk),
                offset: 4096,
                data: filled(0xab, 65536),
                durable,
            };
            assert_eq!(run(&mut ring, op).result.unwrap(), 65536);
        }
        assert_eq!(
            run(
                &mut ring,
                Op::Flush {
                    disk: Arc::clone(&disk)
                }
            )
            .result
            .unwrap(),
            0
        );
        assert!(
            read(&mut ring, &disk, 4096, 65536)
                .iter()
                .all(|byte| *byte == 0xab)
        );
        assert!(
            read(&mut ring, &disk, 0, 4096)
                .iter()
                .all(|byte| *byte == 0)
        );
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn zeroed_ranges_read_zero_with_and_without_a_hole() {
    for backend in BACKENDS {
        let scratch = Scratch::new("ring-zero");
        let disk = disk(&scratch, 8 << 20, false);
        let mut ring = Ring::new(Some(backend)).unwrap();
        for hole in [true, false] {
            let data = filled(0x55, 4 << 20);
            run(
                &mut ring,
                Op::Write {
                    disk: Arc::clone(&disk),
                    offset: 0,
                    data,
                    durable: false,
                },
            );
            let op = Op::Zero {
                disk: Arc::clone(&disk),
                offset: 4096,
                len: 3 << 20,
                hole,
            };
            run(&mut ring, op).result.unwrap();
            let back = read(&mut ring, &disk, 0, 4 << 20);
            assert!(back[4096..4096 + (3 << 20)].iter().all(|byte| *byte == 0));
            assert_eq!((back[4095], back[4096 + (3 << 20)]), (0x55, 0x55));
        }
    }
}

#[test]
fn reads_beyond_the_end_fail_and_give_the_buffer_back() {
    for backend in BACKENDS {
        let scratch = Scratch::new("ring-eof");
        let disk = disk(&scratch, 8192, false);
        let mut ring = Ring::new(Some(backend)).unwrap();
        let completion = run(
            &mut ring,
            Op::Read {
                disk,
                offset: 4096,
                buf: Buf::new(8192),
            },
        );
        assert_eq!(
            completion.result.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(completion.buf.is_some());
    }
}

#[test]
fn many_operations_complete_once_each() {
    for backend in BACKENDS {
        let scratch = Scratch::new("ring-many");
        let disk = disk(&scratch, 16 << 20, false);
        let mut ring = Ring::new(Some(backend)).unwrap();
        let count = 3_000;
        for token in 0..count {
            let offset = token % 4096 * 4096;
            let data = filled(1, 4096);
            let op = Op::Write {
                disk: Arc::clone(&disk),
                offset,
                data,
                durable: false,
            };
            ring.submit(token, op);
        }
        let mut done = Vec::new();
        ring.wait(
            3_000,
            Some(clock::now() + Duration::from_secs(20)),
            &mut done,
        )
        .unwrap();
        let mut tokens: Vec<u64> = done.iter().map(|completion| completion.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, (0..count).collect::<Vec<u64>>());
        assert!(done.iter().all(|completion| completion.result.is_ok()));
    }
}

#[test]
fn readiness_comes_once_and_can_be_cancelled() {
    for backend in BACKENDS {
        let mut ring = Ring::new(Some(backend)).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let near: Descriptor = Arc::new(near);
        ring.submit(
            1,
            Op::Ready {
                fd: Arc::clone(&near),
                interest: Interest::READ,
            },
        );
        let mut done = Vec::new();
        let soon = clock::now() + Duration::from_millis(30);
        ring.wait(1, Some(soon), &mut done).unwrap();
        assert!(done.is_empty() && clock::now() >= soon);
        io::Write::write_all(&mut &far, b"x").unwrap();
        ring.wait(1, None, &mut done).unwrap();
        assert!(Interest::of_result(*done[0].result.as_ref().unwrap()).can_read());

        let (silent, _far) = UnixStream::pair().unwrap();
        ring.submit(
            2,
            Op::Ready {
                fd: Arc::new(silent),
                interest: Interest::READ,
            },
        );
        ring.cancel_ready(2);
        done.clear();
        ring.wait(1, Some(clock::now() + Duration::from_secs(5)), &mut done)
            .unwrap();
        assert_eq!(done[0].token, 2);
        assert_eq!(
            done[0].result.as_ref().unwrap_err().raw_os_error(),
            Some(libc::ECANCELED)
        );
    }
}

#[test]
fn waits_end_at_their_deadlines_in_any_order() {
    for backend in BACKENDS {
        let mut ring = Ring::new(Some(backend)).unwrap();
        let mut done = Vec::new();
        for millis in [40, 5, 20, 1, 0] {
            let at = clock::now() + Duration::from_millis(millis);
            ring.wait(1, Some(at), &mut done).unwrap();
            let late = clock::now().since(at);
            assert!(
                clock::now() >= at && late < Duration::from_millis(20),
                "{late:?} late"
            );
        }
        ring.wait(0, None, &mut done).unwrap();
        assert!(done.is_empty());
    }
}

#[test]
fn a_ring_with_work_in_flight_can_be_dropped() {
    for backend in BACKENDS {
        let scratch = Scratch::new("ring-drop");
        let disk = disk(&scratch, 64 << 20, false);
        let mut ring = Ring::new(Some(backend)).unwrap();
        let (silent, _far) = UnixStream::pair().unwrap();
        ring.submit(
            1,
            Op::Ready {
                fd: Arc::new(silent),
                interest: Interest::READ,
            },
        );
        for token in 0..300 {
            let buf = Buf::new(65536);
            ring.submit(
                token,
                Op::Read {
                    disk: Arc::clone(&disk),
                    offset: 0,
                    buf,
                },
            );
        }
        ring.wait(0, None, &mut Vec::new()).unwrap();
        let started = std::time::Instant::now();
        drop(ring);
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn injected_faults_reach_operations_and_heal() {
    for backend in BACKENDS {
        let scratch = Scratch::new("ring-fault");
        let disk = disk(&scratch, 1 << 20, true);
        let control = scratch.path().join("fault");
        let mut ring = Ring::new(Some(backend)).unwrap();
        let write = |data| Op::Write {
            disk: Arc::clone(&disk),
            offset: 0,
            data,
            durable: false,
        };

        Faults {
            write: Fault::Full,
            ..Faults::NONE
        }
        .set(&control)
        .unwrap();
        let full = run(&mut ring, write(filled(1, 4096))).result.unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
        assert!(
            read(&mut ring, &disk, 0, 4096)
                .iter()
                .all(|byte| *byte == 0)
        );

        Faults::all(Fault::Error).set(&control).unwrap();
        let error = run(
            &mut ring,
            Op::Flush {
                disk: Arc::clone(&disk),
            },
        )
        .result
        .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));

        Faults::all(Fault::Slow(Duration::from_millis(50)))
            .set(&control)
            .unwrap();
        let before = clock::now();
        run(&mut ring, write(filled(2, 4096))).result.unwrap();
        assert!(clock::now().since(before) >= Duration::from_millis(50));

        Faults::all(Fault::Hang).set(&control).unwrap();
        ring.submit(9, write(filled(3, 4096)));
        let mut done = Vec::new();
        ring.wait(1, Some(clock::now() + Duration::from_millis(60)), &mut done)
            .unwrap();
        assert!(done.is_empty());
        Faults::NONE.set(&control).unwrap();
        ring.wait(1, Some(clock::now() + Duration::from_secs(1)), &mut done)
            .unwrap();
        assert_eq!(done[0].token, 9);
        assert_eq!(read(&mut ring, &disk, 0, 4096)[0], 3);
    }
}

/// While it lives, the thread that made it can make no other: a control group of its own, with a limit of one task.
struct NoMoreThreads {
    group: std::path::PathBuf,
    parent_tasks: std::path::PathBuf,
}

impl NoMoreThreads {
    fn begin() -> Self {
        let v1 = std::path::Path::new("/sys/fs/cgroup/pids");
        let v2 = std::path::Path::new("/sys/fs/cgroup");
        let name = format!("backstay-test-{}", std::process::id());
        let (root, tasks) = if v1.is_dir() {
            (v1, "tasks")
        } else {
            (v2, "cgroup.threads")
        };
        let group = root.join(name);
        std::fs::create_dir(&group)
            .expect("this test needs root and the controller of tasks (pids)");
        if root == v2 {
            std::fs::write(v2.join("cgroup.subtree_control"), "+pids").unwrap();
            std::fs::write(group.join("cgroup.type"), "threaded").unwrap();
        }
        let this = Self {
            parent_tasks: root.join(tasks),
            group,
        };
        std::fs::write(this.group.join("pids.max"), "1").unwrap();
        std::fs::write(this.group.join(tasks), tid()).unwrap();
        this
    }
}

impl Drop for NoMoreThreads {
    fn drop(&mut self) {
        std::fs::write(&self.parent_tasks, tid()).ok();
        std::fs::remove_dir(&self.group).ok();
    }
}

fn tid() -> String {
    rustix::thread::gettid().as_raw_nonzero().to_string()
}

#[test]
fn a_kernel_without_worker_threads_does_everything_all_the_same() {
    let scratch = Scratch::new("ring-workers");
    let disk = disk(&scratch, 1 << 20, false);
    let mut ring = Ring::new(Some(Backend::Uring)).unwrap();
    let _limit = NoMoreThreads::begin();
    std::thread::Builder::new()
        .spawn(|| ())
        .expect_err("the limit does not hold");
    for round in 0..3 {
        // More than is done at once, should the file be in memory.
        let op = Op::Write {
            disk: Arc::clone(&disk),
            offset: 131_072 * round,
            data: filled(0x5a, 131_072),
            durable: true,
        };
        assert_eq!(run(&mut ring, op).result.unwrap(), 131_072);
        let op = Op::Flush {
            disk: Arc::clone(&disk),
        };
        run(&mut ring, op).result.unwrap();
    }
    assert!(
        read(&mut ring, &disk, 0, 4096)
            .iter()
            .all(|byte| *byte == 0x5a)
    );
}

#[test]
fn what_is_cancelled_again_and_again_ends() {
    let scratch = Scratch::new("ring-cancelled");
    let disk = disk(&scratch, 1 << 20, false);
    let mut flight = Flight::new(7, Op::Flush { disk });
    let mut again = 0;
    while let Next::Again = flight.advance(Err(Errno::CANCELED.into())) {
        again += 1;
        assert!(again < 20, "it never ends");
    }
    assert!(again > 0);
    assert!(flight.is_immediate(), "the kernel had the last word");
}
