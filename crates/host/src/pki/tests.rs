use super::*;
use crate::scratch::Scratch;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn write_identity(dir: &Path, authority: &Authority, node: &str, lifetime: Duration) {
    authority
        .issue(node, SystemTime::now(), lifetime)
        .unwrap()
        .save(dir)
        .unwrap();
}

fn authority(cluster: &str) -> Authority {
    Authority::create(cluster, SystemTime::now(), CA_LIFETIME).unwrap()
}

#[test]
fn an_issued_identity_loads_and_its_key_is_private() {
    let dir = Scratch::new("pki-good");
    authority("lab").save(dir.path()).unwrap();
    let loaded = Authority::load(dir.path(), "lab").unwrap();
    write_identity(dir.path(), &loaded, "node-a", NODE_LIFETIME);
    let identity = Identity::load(dir.path(), "lab", "node-a", SystemTime::now()).unwrap();
    assert_eq!(identity.node(), "node-a");
    for key in ["ca.key", "node.key"] {
        let mode = std::fs::metadata(dir.path().join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let shown = format!("{identity:?} {loaded:?}");
    assert!(
        !shown.contains("PRIVATE") && !shown.contains("key"),
        "{shown}"
    );
}

#[test]
fn a_ca_is_never_overwritten() {
    let dir = Scratch::new("pki-exists");
    authority("lab").save(dir.path()).unwrap();
    assert!(matches!(
        authority("lab").save(dir.path()),
        Err(PkiError::Exists { .. })
    ));
}

#[test]
fn each_defect_has_its_own_answer() {
    let dir = Scratch::new("pki-defects");
    let (now, ours) = (SystemTime::now(), authority("lab"));
    let load = |node, at| Identity::load(dir.path(), "lab", node, at).unwrap_err();
    assert!(matches!(load("node-a", now), PkiError::Io { .. }));

    write_identity(dir.path(), &ours, "node-a", DAY * 90);
    assert!(matches!(load("node-b", now), PkiError::WrongName { .. }));
    assert!(matches!(
        load("node-a", now + DAY * 93),
        PkiError::Expired { days: 3, .. }
    ));
    assert!(matches!(
        load("node-a", now - DAY * 9),
        PkiError::NotYetValid { .. }
    ));
    assert!(matches!(load("Node_A", now), PkiError::Name { .. }));

    let other = Scratch::new("pki-defects-other");
    write_identity(other.path(), &authority("lab"), "node-a", DAY);
    let swap = |file: &str| {
        let kept = std::fs::read(dir.path().join(file)).unwrap();
        std::fs::copy(other.path().join(file), dir.path().join(file)).unwrap();
        let fault = load("node-a", now);
        std::fs::write(dir.path().join(file), kept).unwrap();
        fault
    };
    assert!(matches!(swap("ca.crt"), PkiError::WrongAuthority { .. }));
    assert!(matches!(swap("node.key"), PkiError::WrongKey { .. }));

    std::fs::write(dir.path().join("node.crt"), "hello").unwrap();
    assert!(matches!(load("node-a", now), PkiError::Unreadable { .. }));
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = Scratch::new("pki-exposed");
    write_identity(dir.path(), &authority("lab"), "node-a", DAY);
    let key = dir.path().join("node.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Identity::load(dir.path(), "lab", "node-a", SystemTime::now()).unwrap_err();
    assert!(matches!(refused, PkiError::Exposed { mode: 0o640, .. }));
    assert!(refused.to_string().contains("0640"), "{refused}");
}

#[test]
fn a_ca_cannot_sign_for_another_cluster() {
    let dir = Scratch::new("pki-constraint");
    authority("lab").save(dir.path()).unwrap();
    let pretender = Authority::load(dir.path(), "prod").unwrap();
    write_identity(dir.path(), &pretender, "node-a", DAY);
    let refused = Identity::load(dir.path(), "prod", "node-a", SystemTime::now());
    assert!(
        matches!(refused, Err(PkiError::Unusable { .. })),
        "{refused:?}"
    );
}
