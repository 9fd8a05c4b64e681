//! Requests: parsed from their 28-byte headers, and refused where they make no sense.

use super::PAYLOAD_MAX;
use super::cursor::Cursor;
use super::handshake::{Agreed, Export};
use super::proto::{self, ErrorCode};

/// Length of a request's header, in bytes.
pub(super) const HEADER_LEN: usize = 28;

/// A request that the engine has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's mark, to be echoed in the reply.
    pub cookie: u64,
    /// What is asked for.
    pub kind: Kind,
}

/// What is asked for. Ranges are within the export, not empty, and multiples of its smallest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, at most [`PAYLOAD_MAX`].
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u32,
    },
    /// Bytes to be stored, at most [`PAYLOAD_MAX`]; they follow as payload.
    Write {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u32,
        /// FUA: answer when it is durable.
        durable: bool,
    },
    /// Everything that was answered has to be durable before this is answered.
    Flush,
    /// The range is not needed any more.
    Trim {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u32,
        /// FUA.
        durable: bool,
    },
    /// The range has to read zero.
    Zero {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u32,
        /// The range may become a hole.
        hole: bool,
        /// FUA.
        durable: bool,
    },
    /// Which parts of the range are allocated.
    BlockStatus {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u32,
        /// Only the first run is wanted.
        one: bool,
    },
}

/// What a header turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Request(Request),
    /// A valid request that needs nothing done.
    Nothing {
        cookie: u64,
    },
    /// To be answered with an error; `skip` bytes of payload follow the header.
    Refused {
        cookie: u64,
        read: bool,
        skip: u32,
        error: ErrorCode,
        text: &'static str,
    },
    /// The client says good-bye.
    Disconnect,
    /// Not a request: the stream cannot be trusted any further.
    Garbage(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Read,
    Write,
    Flush,
    Trim,
    Cache,
    Zero,
    BlockStatus,
}

impl Command {
    /// The flags that make sense. FUA may come with every command.
    const fn flags(self) -> u16 {
        proto::CMD_FUA
            | match self {
                Self::Read => proto::CMD_DF,
                Self::Zero => proto::CMD_NO_HOLE | proto::CMD_FAST_ZERO,
                Self::BlockStatus => proto::CMD_REQ_ONE,
                Self::Write | Self::Flush | Self::Trim | Self::Cache => 0,
            }
    }

    const fn writes(self) -> bool {
        match self {
            Self::Write | Self::Trim | Self::Zero => true,
            Self::Read | Self::Flush | Self::Cache | Self::BlockStatus => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Fields {
    command: Command,
    flags: u16,
    offset: u64,
    len: u32,
}

/// Parses the header of a request to `export`.
pub(super) fn parse(header: &[u8; HEADER_LEN], export: &Export, agreed: Agreed) -> Parsed {
    let mut fields = Cursor::new(header);
    let (Some(magic), Some(flags), Some(code), Some(cookie), Some(offset), Some(len)) = (
        fields.u32(),
        fields.u16(),
        fields.u16(),
        fields.u64(),
        fields.u64(),
        fields.u32(),
    ) else {
        return Parsed::Garbage("short header");
    };
    if magic != proto::REQUEST_MAGIC {
        return Parsed::Garbage("wrong request magic");
    }
    let command = match code {
        0 => Command::Read,
        1 if len > PAYLOAD_MAX => return Parsed::Garbage("payload over the advertised maximum"),
        1 => Command::Write,
        2 => return Parsed::Disconnect,
        3 => Command::Flush,
        4 => Command::Trim,
        5 => Command::Cache,
        6 => Command::Zero,
        7 => Command::BlockStatus,
        _ => {
            let (error, text) = (ErrorCode::Invalid, "unknown command");
            return Parsed::Refused {
                cookie,
                read: false,
                skip: 0,
                error,
                text,
            };
        }
    };
    let fields = Fields {
        command,
        flags,
        offset,
        len,
    };
    match fields.check(export, agreed) {
        Ok(()) => fields.request(cookie),
        Err((error, text)) => {
            let skip = if command == Command::Write { len } else { 0 };
            let read = matches!(command, Command::Read | Command::BlockStatus);
            Parsed::Refused {
                cookie,
                read,
                skip,
                error,
                text,
            }
        }
    }
}

impl Fields {
    fn check(self, export: &Export, agreed: Agreed) -> Result<(), (ErrorCode, &'static str)> {
        let invalid = |text| Err((ErrorCode::Invalid, text));
        if self.flags & !self.command.flags() != 0 {
            return invalid("flag is not defined for this command");
        }
        if self.command.writes() && export.read_only {
            return Err((ErrorCode::Permission, "export is read-only"));
        }
        if self.command == Command::Flush {
            let plain = self.offset == 0 && self.len == 0;
            return if plain {
                Ok(())
            } else {
                invalid("flush has no range")
            };
        }
        if self.len == 0 {
            return invalid("length is zero");
        }
        let block = u64::from(export.block_min);
        let whole = |bytes: u64| bytes.is_multiple_of(block);
        if !whole(self.offset) || !whole(self.len.into()) {
            return invalid("range is not a multiple of the minimum block size");
        }
        let end = self.offset.checked_add(u64::from(self.len));
        if end.is_none_or(|end| end > export.size) {
            let grows = matches!(self.command, Command::Write | Command::Zero);
            let error = if grows {
                ErrorCode::NoSpace
            } else {
                ErrorCode::Invalid
            };
            return Err((error, "range is beyond the end of the export"));
        }
        match self.command {
            Command::Read if self.len > PAYLOAD_MAX => {
                Err((ErrorCode::Overflow, "read is over the advertised maximum"))
            }
            Command::Read if self.flags & proto::CMD_DF != 0 && !agreed.structured => {
                invalid("structured replies were not negotiated")
            }
            Command::BlockStatus if !agreed.allocation => {
                invalid("no metadata context was negotiated")
            }
            Command::Zero if self.flags & proto::CMD_FAST_ZERO != 0 => Err((
                ErrorCode::NotSupported,
                "zeroing is not faster than writing",
            )),
            Command::Read
            | Command::Write
            | Command::Flush
            | Command::Trim
            | Command::Cache
            | Command::Zero
            | Command::BlockStatus => Ok(()),
        }
    }

    fn request(self, cookie: u64) -> Parsed {
        let Self {
            command,
            flags,
            offset,
            len,
        } = self;
        let durable = flags & proto::CMD_FUA != 0;
        let kind = match command {
            Command::Cache => return Parsed::Nothing { cookie },
            Command::Read => Kind::Read { offset, len },
            Command::Write => Kind::Write {
                offset,
                len,
                durable,
            },
            Command::Flush => Kind::Flush,
            Command::Trim => Kind::Trim {
                offset,
                len,
                durable,
            },
            Command::Zero => Kind::Zero {
                offset,
                len,
                hole: flags & proto::CMD_NO_HOLE == 0,
                durable,
            },
            Command::BlockStatus => Kind::BlockStatus {
                offset,
                len,
                one: flags & proto::CMD_REQ_ONE != 0,
            },
        };
        Parsed::Request(Request { cookie, kind })
    }
}
