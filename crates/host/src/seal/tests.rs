use super::*;

fn pair(id: u64) -> (PeerSessions, PeerSessions) {
    let (forth, back) = ([7; KEY_BYTES], [9; KEY_BYTES]);
    let mut a = PeerSessions::new();
    let mut b = PeerSessions::new();
    a.install(&SessionKeys::new(
        SessionId(id),
        "node-b".into(),
        forth,
        back,
    ));
    b.install(&SessionKeys::new(
        SessionId(id),
        "node-a".into(),
        back,
        forth,
    ));
    (a, b)
}

#[test]
fn both_directions_carry_payloads_of_every_length() {
    let (mut a, mut b) = pair(1);
    for length in [0, 1, 15, 16, 17, 1_000, PAYLOAD_MAX] {
        let payload = vec![u8::try_from(length % 251).unwrap(); length];
        let mut there = a.seal(&payload).unwrap();
        assert!(there.len() <= DATAGRAM_MAX);
        assert_eq!(b.open(&mut there).unwrap(), payload);
        let mut back = b.seal(&payload).unwrap();
        assert_eq!(a.open(&mut back).unwrap(), payload);
    }
    let bytes = PAYLOAD_MAX + 1;
    assert_eq!(a.seal(&vec![0; bytes]), Err(SealError::TooLong { bytes }));
}

#[test]
fn a_datagram_is_accepted_once() {
    let (mut a, mut b) = pair(1);
    let sealed = a.seal(b"lease").unwrap();
    assert_eq!(b.open(&mut sealed.clone()).unwrap(), b"lease");
    assert_eq!(b.open(&mut sealed.clone()), Err(OpenError::Replayed));
}

#[test]
fn any_flipped_bit_is_refused_and_costs_nothing() {
    let (mut a, mut b) = pair(1);
    let sealed = a.seal(b"grant until").unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(b.open(&mut forged).is_err(), "bit {bit}");
    }
    assert_eq!(b.open(&mut sealed.clone()).unwrap(), b"grant until");
}

#[test]
fn every_truncation_is_refused() {
    let (mut a, mut b) = pair(1);
    let sealed = a.seal(b"grant until").unwrap();
    for length in 0..sealed.len() {
        assert!(
            b.open(&mut sealed[..length].to_vec()).is_err(),
            "{length} bytes"
        );
    }
    let mut longer = vec![0; DATAGRAM_MAX + 1];
    longer[..sealed.len()].copy_from_slice(&sealed);
    assert_eq!(b.open(&mut longer), Err(OpenError::Malformed));
}

#[test]
fn a_datagram_sent_back_to_its_sender_is_refused() {
    let (mut a, _) = pair(1);
    let mut reflected = a.seal(b"mine").unwrap();
    assert_eq!(a.open(&mut reflected), Err(OpenError::Forged));
}

#[test]
fn another_sessions_keys_open_nothing() {
    let (mut a, _) = pair(1);
    let mut b = PeerSessions::new();
    let other = [8; KEY_BYTES];
    b.install(&SessionKeys::new(
        SessionId(1),
        "node-a".into(),
        other,
        other,
    ));
    assert_eq!(b.open(&mut a.seal(b"x").unwrap()), Err(OpenError::Forged));
    let (mut c, _) = pair(2);
    assert_eq!(
        b.open(&mut c.seal(b"x").unwrap()),
        Err(OpenError::UnknownKey(SessionId(2)))
    );
}

#[test]
fn late_datagrams_pass_within_the_window_only() {
    let (mut a, mut b) = pair(1);
    let count = usize::try_from(WINDOW).unwrap() + 10;
    let sealed: Vec<_> = (0..count).map(|_| a.seal(b"x").unwrap()).collect();
    assert!(b.open(&mut sealed[count - 1].clone()).is_ok());
    for (counter, datagram) in sealed.iter().enumerate().take(count - 1) {
        let accepted = b.open(&mut datagram.clone()).is_ok();
        assert_eq!(accepted, counter >= 10, "counter {counter}");
        assert!(
            b.open(&mut datagram.clone()).is_err(),
            "counter {counter} again"
        );
    }
}

#[test]
fn the_window_agrees_with_a_set_of_seen_counters() {
    let mut window = Window::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut state = 42_u64;
    let mut newest = 0_u64;
    for _ in 0..200_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let step = state >> 40;
        let counter = match step % 16 {
            0 => newest + step % 5_000,
            1..=4 => newest + step % 3,
            _ => newest.saturating_sub(step % 2_500),
        };
        let old = newest.saturating_sub(counter) >= WINDOW;
        let expected = !old && !seen.contains(&counter);
        assert_eq!(
            window.is_new(counter),
            expected,
            "counter {counter}, newest {newest}"
        );
        if expected {
            window.mark(counter);
            seen.insert(counter);
            newest = newest.max(counter);
        }
    }
}

#[test]
fn older_sessions_still_receive_until_they_fall_out() {
    let (mut a, mut b) = pair(1);
    let mut early: Vec<_> = (0..5).map(|_| a.seal(b"early").unwrap()).collect();
    for id in 2..=u64::try_from(SESSIONS_MAX).unwrap() {
        let keys = SessionKeys::new(SessionId(id), "node-a".into(), [1; 32], [2; 32]);
        b.install(&keys);
        assert!(b.open(&mut early.pop().unwrap()).is_ok(), "session {id}");
    }
    b.install(&SessionKeys::new(
        SessionId(99),
        "node-a".into(),
        [1; 32],
        [2; 32],
    ));
    assert_eq!(
        b.open(&mut early.pop().unwrap()),
        Err(OpenError::UnknownKey(SessionId(1)))
    );
    assert!(b.knows(SessionId(99)) && !b.knows(SessionId(1)));
}
