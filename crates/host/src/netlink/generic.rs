//! Commands to a generic netlink family (`include/uapi/linux/genetlink.h`).

use super::{Family, Message, NetlinkError, Socket, attributes};

/// Size of `struct genlmsghdr`.
const HEADER_BYTES: usize = 4;
/// The family that knows all others.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 2;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// A socket that speaks to one family.
#[derive(Debug)]
pub(crate) struct Generic {
    socket: Socket,
    family: u16,
    version: u8,
}

impl Generic {
    /// Looks the family up.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with `ENOENT` if the kernel has no family of this name.
    pub(crate) fn open(name: &str, version: u8) -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(Family::Generic)?;
        let request = command(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_VERSION)
            .text(CTRL_ATTR_FAMILY_NAME, name);
        let mut family = None;
        socket.ask("find a netlink family", request, |body| {
            family = family_id(body).or(family);
            Ok(())
        })?;
        Ok(Self {
            socket,
            family: family.ok_or(NetlinkError::Malformed)?,
            version,
        })
    }

    /// Sends one command with the attributes that `fill` appends, and hands the attributes of each answer to `take`.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's reason.
    pub(crate) fn command(
        &mut self,
        doing: &'static str,
        number: u8,
        fill: impl FnOnce(Message) -> Message,
        mut take: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        let request = fill(command(self.family, number, self.version));
        self.socket.ask(doing, request, |body| {
            let body = body.get(HEADER_BYTES..).ok_or(NetlinkError::Malformed)?;
            attributes(body).for_each(|(kind, payload)| take(kind, payload));
            Ok(())
        })
    }
}

fn command(family: u16, number: u8, version: u8) -> Message {
    Message::new(family, 0).raw(&[number, version, 0, 0])
}

fn family_id(body: &[u8]) -> Option<u16> {
    let (_, payload) =
        attributes(body.get(HEADER_BYTES..)?).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)?;
    Some(u16::from_ne_bytes(payload.get(..2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn families_are_found_by_name() {
        // The one family that every kernel has.
        assert_eq!(Generic::open("nlctrl", 2).unwrap().family, GENL_ID_CTRL);
        let missing = Generic::open("backstay-none", 1).unwrap_err();
        assert_eq!(missing.errno(), Some(Errno::NOENT));
    }

    #[test]
    fn cut_answers_have_no_family() {
        assert_eq!(family_id(&[]), None);
        assert_eq!(family_id(&[1, 2, 0, 0, 5, 0, 1, 0, 9]), None);
        assert_eq!(family_id(&[1, 2, 0, 0, 6, 0, 1, 0, 9, 0]), Some(9));
    }
}
