use super::*;
use crate::scratch::Scratch;

fn payload(byte: u8, bytes: usize) -> Vec<u8> {
    vec![byte; bytes]
}

#[test]
fn the_newest_save_is_read_back() {
    let dir = Scratch::new("slots-newest");
    let path = dir.path().join("member.state");
    let mut slots = Slots::create(&path, b"one").unwrap();
    slots.save(b"two").unwrap();
    slots.save(b"three").unwrap();
    let opened = Slots::open(&path).unwrap();
    assert_eq!(opened.payload, b"three");
    assert_eq!(opened.other, OtherSlot::Older);
    assert_eq!(opened.slots.sequence(), 3);
}

#[test]
fn a_torn_write_never_loses_the_older_slot() {
    let dir = Scratch::new("slots-torn");
    let path = dir.path().join("member.state");
    let mut slots = Slots::create(&path, &payload(1, 5_000)).unwrap();
    slots.save(&payload(2, 6_000)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let newer = encode(3, &payload(3, 7_000)).unwrap();
    for cut in (0..newer.len()).step_by(SECTOR_BYTES) {
        for lost_first in [false, true] {
            let mut torn = before.clone();
            let written = if lost_first { cut..newer.len() } else { 0..cut };
            torn[written.clone()].copy_from_slice(&newer[written.clone()]);
            std::fs::write(&path, &torn).unwrap();
            let opened = Slots::open(&path).unwrap();
            let whole = written == (0..newer.len());
            let expected = if whole {
                payload(3, 7_000)
            } else {
                payload(2, 6_000)
            };
            assert_eq!(
                opened.payload, expected,
                "cut at {cut}, first part lost: {lost_first}"
            );
        }
    }
}

#[test]
fn a_save_after_a_torn_write_reuses_the_torn_slot() {
    let dir = Scratch::new("slots-reuse");
    let path = dir.path().join("member.state");
    let mut slots = Slots::create(&path, b"one").unwrap();
    slots.save(b"two").unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[HEADER_BYTES] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut opened = Slots::open(&path).unwrap();
    assert_eq!(
        (opened.payload.as_slice(), opened.other),
        (b"two".as_slice(), OtherSlot::Broken)
    );
    opened.slots.save(b"three").unwrap();
    assert_eq!(Slots::open(&path).unwrap().payload, b"three");
}

#[test]
fn missing_empty_foreign_and_damaged_files_are_told_apart() {
    let dir = Scratch::new("slots-kinds");
    let path = dir.path().join("member.state");
    assert!(matches!(Slots::open(&path), Err(OpenError::Missing { .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(Slots::open(&path), Err(OpenError::Empty { .. })));
    std::fs::write(&path, vec![0; 2 * SLOT_BYTES]).unwrap();
    assert!(matches!(Slots::open(&path), Err(OpenError::Empty { .. })));
    std::fs::write(&path, b"[[node]]\nname = 'a'").unwrap();
    assert!(matches!(Slots::open(&path), Err(OpenError::Foreign { .. })));
    let mut broken = encode(1, b"one").unwrap();
    broken[HEADER_BYTES] ^= 1;
    std::fs::write(&path, &broken).unwrap();
    assert!(matches!(Slots::open(&path), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_newer_format_is_refused_although_the_older_slot_is_readable() {
    let dir = Scratch::new("slots-newer");
    let path = dir.path().join("member.state");
    drop(Slots::create(&path, b"one").unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    let slot = encode(2, b"two").unwrap();
    let mut header = Header::read_from_prefix(&slot).unwrap().0;
    header.format = U16::new(FORMAT + 1);
    header.header_crc = U32::new(header_crc(&header));
    bytes[SLOT_BYTES..SLOT_BYTES + HEADER_BYTES].copy_from_slice(header.as_bytes());
    std::fs::write(&path, &bytes).unwrap();
    assert!(
        matches!(Slots::open(&path), Err(OpenError::Newer { format, .. }) if format == FORMAT + 1)
    );
}

#[test]
fn an_existing_file_is_not_overwritten() {
    let dir = Scratch::new("slots-exists");
    let path = dir.path().join("member.state");
    std::fs::write(&path, b"precious").unwrap();
    assert!(Slots::create(&path, b"one").is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn too_long_a_payload_is_refused_and_the_file_stays_usable() {
    let dir = Scratch::new("slots-long");
    let path = dir.path().join("member.state");
    let mut slots = Slots::create(&path, &payload(1, PAYLOAD_MAX)).unwrap();
    assert!(matches!(
        slots.save(&payload(2, PAYLOAD_MAX + 1)),
        Err(SaveError::TooLong { .. })
    ));
    slots.save(&payload(3, PAYLOAD_MAX)).unwrap();
    assert_eq!(Slots::open(&path).unwrap().payload, payload(3, PAYLOAD_MAX));
}

#[test]
fn a_failed_save_is_final() {
    // /dev/full accepts the open and refuses every write.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut slots = Slots {
        file,
        path: "/dev/full".into(),
        sequence: 1,
        failed: false,
    };
    assert!(matches!(slots.save(b"x"), Err(SaveError::Failed { .. })));
    assert!(matches!(
        slots.save(b"x"),
        Err(SaveError::FailedBefore { .. })
    ));
}

/// All subsets of the sectors that a save writes, for files of different lengths over one another. What is read back is the
/// value before the save or the new one, never an older one and never none.
#[test]
fn every_crash_state_of_a_save_holds_the_last_value_or_the_new_one() {
    let path = Path::new("member.state");
    let mut file = vec![0; 2 * SLOT_BYTES];
    let put = |file: &mut Vec<u8>, sequence: u64, bytes: &[u8], keep: &dyn Fn(usize) -> bool| {
        let start = usize::try_from(offset_of(sequence)).unwrap();
        for (n, sector) in bytes
            .chunks(SECTOR_BYTES)
            .enumerate()
            .filter(|(n, _)| keep(*n))
        {
            let at = start + n * SECTOR_BYTES;
            file[at..at + sector.len()].copy_from_slice(sector);
        }
    };
    let mut last = payload(1, 100);
    put(&mut file, 1, &encode(1, &last).unwrap(), &|_| true);
    let mut states = 0_u32;
    for (sequence, len) in (2..).zip([3_000, 10, 5_500, 5_000, 460, 470, 2_222, 5_600]) {
        let new = payload(u8::try_from(sequence).unwrap(), len);
        let bytes = encode(sequence, &new).unwrap();
        for landed in 0..1_u32 << (bytes.len() / SECTOR_BYTES) {
            let mut crashed = file.clone();
            put(&mut crashed, sequence, &bytes, &|n| landed & (1 << n) != 0);
            let (a, b) = crashed.split_at(SLOT_BYTES);
            let (found, read, _) = choose(path, read_slot(a), read_slot(b)).unwrap();
            let expected = if found == sequence { &new } else { &last };
            assert!(read == *expected && found + 1 >= sequence, "{landed:#b}");
            states += 1;
        }
        put(&mut file, sequence, &bytes, &|_| true);
        last = new;
    }
    println!("crash states: {states} of member.state");
    assert!(states >= 5_000, "only {states}");
}
