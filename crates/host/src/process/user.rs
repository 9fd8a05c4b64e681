//! The user under whom a service runs.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;

/// A user's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login name.
    pub name: String,
}

/// A user could not be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not in `/etc/passwd`. Users of a directory service have to be given as `UID:GID`.
    #[error("there is no user {name:?} in /etc/passwd; give UID:GID for users kept elsewhere")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The system refused.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl User {
    /// Finds a user by name in `/etc/passwd` and `/etc/group`, or takes `UID:GID` as it is.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn find(name: &str) -> Result<Self, UserError> {
        if let Some((uid, gid)) = name.split_once(':')
            && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
        {
            let home = "/".to_owned();
            return Ok(Self {
                uid,
                gid,
                groups: vec![gid],
                home,
                name: uid.to_string(),
            });
        }
        let found = parse(&read("/etc/passwd")?, &read("/etc/group")?, name);
        found.ok_or_else(|| UserError::Unknown {
            name: name.to_owned(),
        })
    }
}

fn read(path: &'static str) -> Result<String, UserError> {
    fs::read_to_string(path).map_err(|source| UserError::Io { path, source })
}

/// From the texts of passwd(5) and group(5).
fn parse(passwd: &str, group: &str, name: &str) -> Option<User> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let fields: Vec<_> = line.split(':').collect();
    let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    let mut groups = vec![gid];
    for line in group.lines() {
        let fields: Vec<_> = line.split(':').collect();
        let member = fields
            .get(3)
            .is_some_and(|members| members.split(',').any(|m| m == name));
        let id: Option<u32> = fields.get(2).and_then(|id| id.parse().ok());
        groups.extend(id.filter(|id| member && *id != gid));
    }
    let home = (*fields.get(5)?).to_owned();
    Some(User {
        uid,
        gid,
        groups,
        home,
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_primary_and_supplementary_groups() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgres:x:104:110:,,,:/var/lib/postgresql:/bin/bash\n";
        let group = "root:x:0:\nssl-cert:x:111:www,postgres\npostgres:x:110:postgres\nbad\n";
        let found = parse(passwd, group, "postgres").unwrap();
        assert_eq!(
            (found.uid, found.gid, found.groups),
            (104, 110, vec![110, 111])
        );
        assert_eq!(found.home, "/var/lib/postgresql");
        assert_eq!(parse(passwd, group, "nobody"), None);
    }

    #[test]
    fn numbers_are_taken_as_they_are() {
        let user = User::find("1000:1001").unwrap();
        assert_eq!((user.uid, user.gid), (1000, 1001));
        assert_eq!(User::find("root").unwrap().uid, 0);
        assert!(matches!(
            User::find("no such user"),
            Err(UserError::Unknown { .. })
        ));
    }
}
