use super::abi::{InHeader, TransferIn};
use super::*;
use crate::loopdev::{self, Attach, LoopDevice};
use crate::mount::{Unmount, mounted_at, unmount};
use crate::scratch::Scratch;
use std::os::unix::fs::FileExt;
use zerocopy::IntoBytes;

const SIZE: u64 = 1 << 20;

fn message(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let header = InHeader {
        len: 0,
        opcode,
        unique: 6,
        node,
        uid: 0,
        gid: 0,
        pid: 1,
        extensions: 0,
        padding: 0,
    };
    [header.as_bytes(), body].concat()
}

fn init(minor: u32, flags: u32, flags2: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for word in [7, minor, 65536, flags, flags2] {
        body.extend(word.to_ne_bytes());
    }
    body.extend([0; 44]);
    message(26, 0, &body)
}

fn transfer(opcode: u32, offset: u64, size: u32) -> Vec<u8> {
    let body = TransferIn {
        handle: 1,
        offset,
        size,
        transfer_flags: 0,
        lock_owner: 0,
        flags: 0,
        padding: 0,
    };
    message(opcode, 2, body.as_bytes())
}

fn fallocate(mode: u32, offset: u64, len: u64) -> Vec<u8> {
    let mut body = 1_u64.to_ne_bytes().to_vec();
    body.extend(offset.to_ne_bytes());
    body.extend(len.to_ne_bytes());
    body.extend(mode.to_ne_bytes());
    body.extend([0; 4]);
    message(43, 2, &body)
}

fn ready() -> Session {
    let mut session = Session::new(SIZE, 512);
    let action = session.handle(&init(41, u32::MAX, u32::MAX), 0);
    assert!(matches!(action, Action::Ready(..)));
    session
}

/// The error number of a reply; 0 for success.
fn errno(action: Action) -> i32 {
    let Action::Reply(bytes) = action else {
        panic!("no reply: {action:?}")
    };
    -i32::from_ne_bytes(bytes[4..8].try_into().unwrap())
}

#[test]
fn init_agrees_on_what_both_know() {
    let mut session = Session::new(SIZE, 512);
    let Action::Ready(reply, negotiated) = session.handle(&init(45, u32::MAX, u32::MAX), 0) else {
        panic!("not ready")
    };
    assert_eq!(reply.len(), 16 + 64);
    assert_eq!(negotiated.minor, 41);
    assert!(negotiated.can_resend());
    assert_eq!(
        Negotiated::from_bytes(&negotiated.to_bytes()),
        Some(negotiated)
    );
    assert_eq!(Negotiated::from_bytes(&[0xff]), None);

    let mut old = Session::new(SIZE, 512);
    let Action::Ready(_, negotiated) = old.handle(&init(31, 1 << 22, 0), 0) else {
        panic!("not ready")
    };
    assert!(!negotiated.can_resend());
    assert_eq!(
        errno(Session::new(SIZE, 512).handle(&init(20, 0, 0), 0)),
        libc::EPROTO
    );
}

#[test]
fn nothing_is_served_before_init() {
    let mut session = Session::new(SIZE, 512);
    assert_eq!(errno(session.handle(&transfer(15, 0, 512), 0)), libc::EIO);
}

#[test]
fn io_goes_to_the_engine_within_bounds() {
    let mut session = ready();
    let mut kind = |message: &[u8], payload| match session.handle(message, payload) {
        Action::Io(request) => Ok(request.kind),
        refused @ (Action::Reply(_) | Action::Ready(..) | Action::Nothing) => Err(errno(refused)),
    };
    assert_eq!(
        kind(&transfer(15, 512, 1024), 0),
        Ok(IoKind::Read {
            offset: 512,
            len: 1024
        })
    );
    let tail = IoKind::Read {
        offset: SIZE - 512,
        len: 512,
    };
    assert_eq!(
        kind(&transfer(15, SIZE - 512, 4096), 0),
        Ok(tail),
        "cut at the end"
    );
    let empty = IoKind::Read {
        offset: SIZE + 512,
        len: 0,
    };
    assert_eq!(kind(&transfer(15, SIZE + 512, 4096), 0), Ok(empty));
    assert_eq!(kind(&transfer(15, 1, 512), 0), Err(libc::EINVAL));
    assert_eq!(
        kind(&transfer(15, 0, TRANSFER_MAX + 512), 0),
        Err(libc::EINVAL)
    );
    assert_eq!(
        kind(&transfer(16, 0, 512), 512),
        Ok(IoKind::Write {
            offset: 0,
            len: 512
        })
    );
    assert_eq!(
        kind(&transfer(16, 0, 512), 100),
        Err(libc::EINVAL),
        "payload is missing"
    );
    assert_eq!(kind(&transfer(16, SIZE, 512), 512), Err(libc::ENOSPC));
    assert_eq!(
        kind(&transfer(16, u64::MAX - 100, 512), 512),
        Err(libc::EINVAL)
    );
    assert_eq!(kind(&message(20, 2, &[0; 16]), 0), Ok(IoKind::Flush));
    let zero = |hole| {
        Ok(IoKind::Zero {
            offset: 0,
            len: 4096,
            hole,
        })
    };
    assert_eq!(kind(&fallocate(3, 0, 4096), 0), zero(true));
    assert_eq!(kind(&fallocate(0x11, 0, 4096), 0), zero(false));
    assert_eq!(
        kind(&fallocate(0, 0, 4096), 0),
        Err(0),
        "allocation is already there"
    );
    assert_eq!(
        kind(&fallocate(8, 0, 4096), 0),
        Err(libc::EOPNOTSUPP),
        "collapse"
    );
    assert_eq!(kind(&fallocate(3, SIZE, 4096), 0), Err(libc::ENOSPC));
}

#[test]
fn metadata_is_answered_here() {
    let mut session = ready();
    let mut error = |message: &[u8]| errno(session.handle(message, 0));
    assert_eq!(error(&message(1, 1, b"volume\0")), 0);
    assert_eq!(error(&message(1, 1, b"other\0")), libc::ENOENT);
    assert_eq!(error(&message(1, 2, b"volume\0")), libc::ENOENT);
    assert_eq!(error(&message(3, 2, &[0; 16])), 0);
    assert_eq!(error(&message(3, 3, &[0; 16])), libc::ENOENT);
    assert_eq!(error(&message(14, 2, &[0; 8])), 0);
    assert_eq!(error(&message(14, 1, &[0; 8])), libc::EISDIR);
    assert_eq!(error(&message(17, 1, &[])), 0);
    for opcode in [18, 25, 38] {
        assert_eq!(error(&message(opcode, 2, &[0; 24])), 0);
    }
    assert_eq!(error(&message(22, 2, &[0; 8])), libc::ENOSYS);
    let mut truncate = vec![8, 0, 0, 0];
    truncate.extend([0; 84]);
    assert_eq!(error(&message(4, 2, &truncate)), libc::EPERM);
    truncate[0] = 0;
    assert_eq!(error(&message(4, 2, &truncate)), 0);
}

#[test]
fn any_bytes_are_survived() {
    let mut session = ready();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for len in (0..200).cycle().take(50_000) {
        let bytes: Vec<u8> = (0..len)
            .map(|at| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let opcode = at == 4;
                let byte = random.to_ne_bytes()[3];
                if (5..8).contains(&at) {
                    0
                } else if opcode {
                    byte % 50
                } else {
                    byte
                }
            })
            .collect();
        drop(session.handle(&bytes, len));
    }
}

/// A thread that serves a mount from memory until it is unmounted.
fn serve(mut channel: Channel) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
        loop {
            match channel.receive().unwrap() {
                None => std::thread::sleep(std::time::Duration::from_micros(200)),
                Some(Incoming::Ready(_)) => {}
                Some(Incoming::Unmounted) => return bytes,
                Some(Incoming::Io(request, payload)) => {
                    answer(&channel, &mut bytes, &request, payload.as_deref());
                }
            }
        }
    })
}

fn answer(channel: &Channel, bytes: &mut [u8], request: &IoRequest, payload: Option<&[u8]>) {
    let range = |offset: u64, len: u64| {
        let start = usize::try_from(offset).unwrap();
        start..start + usize::try_from(len).unwrap()
    };
    match request.kind {
        IoKind::Read { offset, len } => {
            let data = crate::ring::Buf::copy_of(&bytes[range(offset, len.into())]).freeze();
            channel.data(request, &data).unwrap();
            return;
        }
        IoKind::Write { offset, len } => {
            bytes[range(offset, len.into())].copy_from_slice(payload.unwrap());
        }
        IoKind::Zero { offset, len, .. } => bytes[range(offset, len)].fill(0),
        IoKind::Flush => {}
    }
    channel.done(request).unwrap();
}

#[test]
fn file_and_loop_device_work_on_a_real_kernel() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scratch = Scratch::new("fuse");
    let channel = Channel::mount(scratch.path(), "test", SIZE, 512).unwrap();
    let server = serve(channel);
    let file = scratch.path().join(FILE_NAME);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), SIZE);
    assert_eq!(
        mounted_at(scratch.path()).unwrap().unwrap().fstype,
        "fuse.backstay"
    );

    let how = Attach {
        block_size: 4096,
        autoclear: false,
    };
    let device = LoopDevice::attach(&file, how).unwrap();
    assert_eq!(loopdev::find(&file).unwrap(), [device.path()]);
    let block = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device.path())
        .unwrap();
    block.write_all_at(&[7; 300_000], 4096).unwrap();
    block.sync_all().unwrap();
    rustix::fs::fallocate(&block, crate::disk::PUNCH, 8192, 4096).unwrap();
    drop(block);
    let path = device.path().to_owned();
    device.detach().unwrap();
    assert_eq!(loopdev::backing_file(&path), None);

    unmount(scratch.path(), Unmount::Clean).unwrap();
    let bytes = server.join().unwrap();
    assert!(bytes[4096..8192].iter().all(|byte| *byte == 7));
    assert!(bytes[8192..12288].iter().all(|byte| *byte == 0));
    assert!(bytes[12288..304_096].iter().all(|byte| *byte == 7));
    assert_eq!(bytes[304_096], 0);
}
