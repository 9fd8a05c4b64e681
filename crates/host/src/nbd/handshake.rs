//! Negotiation: what the export is called, what it can do, or why it cannot be had.

use super::PAYLOAD_MAX;
use super::cursor::Cursor;
use super::proto::{self, Opt};

/// The longest export name, in bytes (the protocol's own limit).
const NAME_MAX: usize = 4096;

/// What is served to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name; the empty name means it too.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// In bytes.
    pub size: u64,
    /// Smallest unit of offsets and lengths in bytes: a power of two from 512 to 4096.
    pub block_min: u32,
    /// Writes are refused.
    pub read_only: bool,
}

/// Why an export is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This node is not the active one, or must not serve now.
    NotActive,
    /// The daemon is ending.
    Stopping,
}

/// What a connection gets to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The export.
    Serve(Export),
    /// The export exists, but not for you.
    Refuse {
        /// Its name.
        name: String,
        /// The kind of reason.
        why: Refusal,
        /// The reason in words: `not active on this node: …`.
        text: String,
    },
}

impl Offer {
    fn name(&self) -> &str {
        match self {
            Self::Serve(export) => &export.name,
            Self::Refuse { name, .. } => name,
        }
    }
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) structured: bool,
    /// `base:allocation` may be asked for.
    pub(super) allocation: bool,
}

/// What follows from an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// More options.
    Continue,
    /// Requests follow.
    Transmit(Export),
    /// The client gave up, or the old-style option cannot report the refusal.
    Close,
}

/// An error reply: code and text.
type Refused = (u32, String);

/// The negotiation's state.
#[derive(Debug)]
pub(super) struct Handshake {
    offer: Offer,
    agreed: Agreed,
    pub(super) no_zeroes: bool,
}

impl Handshake {
    pub(super) fn new(offer: Offer) -> Self {
        Self {
            offer,
            agreed: Agreed::default(),
            no_zeroes: false,
        }
    }

    pub(super) fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Handles one option with its data; replies go to `out`.
    pub(super) fn on_option(&mut self, code: u32, data: &[u8], out: &mut Vec<u8>) -> Verdict {
        let outcome = match Opt::from_code(code) {
            Opt::ExportName => return self.on_export_name(data, out),
            Opt::Abort => {
                reply(out, code, proto::REP_ACK, &[]);
                return Verdict::Close;
            }
            Opt::List => self.on_list(code, data, out),
            Opt::StartTls => Err((
                proto::REP_ERR_POLICY,
                "TLS is not offered on this socket".into(),
            )),
            Opt::Info => self.on_info(code, data, out).map(|_| Verdict::Continue),
            Opt::Go => self.on_info(code, data, out).map(Verdict::Transmit),
            Opt::StructuredReply => self.on_structured_reply(data),
            Opt::ListMetaContext => self.on_list_context(code, data, out),
            Opt::SetMetaContext => self.on_set_context(code, data, out),
            Opt::Unknown => Err((proto::REP_ERR_UNSUP, format!("option {code} is not known"))),
        };
        match outcome {
            Ok(verdict) => {
                reply(out, code, proto::REP_ACK, &[]);
                verdict
            }
            Err((error, text)) => {
                reply(out, code, error, text.as_bytes());
                Verdict::Continue
            }
        }
    }

    fn on_export_name(&mut self, data: &[u8], out: &mut Vec<u8>) -> Verdict {
        let Some(export) = std::str::from_utf8(data)
            .ok()
            .and_then(|name| self.find(name).ok())
        else {
            return Verdict::Close;
        };
        let export = export.clone();
        out.extend(export.size.to_be_bytes());
        out.extend(self.transmission_flags(&export).to_be_bytes());
        if !self.no_zeroes {
            out.extend([0; 124]);
        }
        Verdict::Transmit(export)
    }

    fn on_list(&self, code: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Verdict, Refused> {
        if !data.is_empty() {
            return Err(malformed());
        }
        let name = self.offer.name().as_bytes();
        let mut server = len_of(name).to_be_bytes().to_vec();
        server.extend(name);
        match &self.offer {
            Offer::Serve(export) => server.extend(export.description.as_bytes()),
            Offer::Refuse { text, .. } => server.extend(text.as_bytes()),
        }
        reply(out, code, proto::REP_SERVER, &server);
        Ok(Verdict::Continue)
    }

    fn on_info(&self, code: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Export, Refused> {
        let (name, wanted) = parse_info(data).ok_or_else(malformed)?;
        let export = self.find(name)?;
        let mut info = proto::INFO_EXPORT.to_be_bytes().to_vec();
        info.extend(export.size.to_be_bytes());
        info.extend(self.transmission_flags(export).to_be_bytes());
        reply(out, code, proto::REP_INFO, &info);

        let mut sizes = proto::INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [export.block_min, 4096.max(export.block_min), PAYLOAD_MAX] {
            sizes.extend(size.to_be_bytes());
        }
        reply(out, code, proto::REP_INFO, &sizes);

        let texts = [
            (proto::INFO_NAME, &export.name),
            (proto::INFO_DESCRIPTION, &export.description),
        ];
        for (kind, text) in texts {
            if wanted.contains(&kind) {
                let mut info = kind.to_be_bytes().to_vec();
                info.extend(text.as_bytes());
                reply(out, code, proto::REP_INFO, &info);
            }
        }
        Ok(export.clone())
    }

    fn on_structured_reply(&mut self, data: &[u8]) -> Result<Verdict, Refused> {
        if !data.is_empty() {
            return Err(malformed());
        }
        self.agreed.structured = true;
        Ok(Verdict::Continue)
    }

    fn on_list_context(
        &self,
        code: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Refused> {
        let (name, queries) = parse_contexts(data).ok_or_else(malformed)?;
        self.find(name)?;
        let listed = |query: &&str| matches!(*query, proto::BASE_ALLOCATION | "base:");
        if queries.is_empty() || queries.iter().any(listed) {
            reply_context(out, code, 0);
        }
        Ok(Verdict::Continue)
    }

    fn on_set_context(
        &mut self,
        code: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Refused> {
        // Whatever is wrong with it, the request takes back what an earlier one selected.
        self.agreed.allocation = false;
        let (name, queries) = parse_contexts(data).ok_or_else(malformed)?;
        if !self.agreed.structured {
            let text = "structured replies have to be negotiated first".to_owned();
            return Err((proto::REP_ERR_INVALID, text));
        }
        self.find(name)?;
        if queries.contains(&proto::BASE_ALLOCATION) {
            self.agreed.allocation = true;
            reply_context(out, code, super::connection::ALLOCATION_ID);
        }
        Ok(Verdict::Continue)
    }

    fn find(&self, name: &str) -> Result<&Export, Refused> {
        if !name.is_empty() && name != self.offer.name() {
            let text = format!("export '{}' is not known here", name.escape_debug());
            return Err((proto::REP_ERR_UNKNOWN, text));
        }
        match &self.offer {
            Offer::Serve(export) => Ok(export),
            Offer::Refuse {
                why: Refusal::NotActive,
                text,
                ..
            } => Err((proto::REP_ERR_POLICY, text.clone())),
            Offer::Refuse {
                why: Refusal::Stopping,
                text,
                ..
            } => Err((proto::REP_ERR_SHUTDOWN, text.clone())),
        }
    }

    fn transmission_flags(&self, export: &Export) -> u16 {
        let mut flags = proto::HAS_FLAGS
            | proto::SEND_FLUSH
            | proto::SEND_FUA
            | proto::SEND_TRIM
            | proto::SEND_WRITE_ZEROES
            | proto::CAN_MULTI_CONN
            | proto::SEND_CACHE
            | proto::SEND_FAST_ZERO;
        if self.agreed.structured {
            flags |= proto::SEND_DF;
        }
        if export.read_only {
            flags |= proto::READ_ONLY;
        }
        flags
    }
}

fn malformed() -> Refused {
    (
        proto::REP_ERR_INVALID,
        "the option's data is malformed".to_owned(),
    )
}

fn parse_info(data: &[u8]) -> Option<(&str, Vec<u16>)> {
    let mut data = Cursor::new(data);
    let name = data.string().filter(|name| name.len() <= NAME_MAX)?;
    let count = data.u16()?;
    let wanted = (0..count).map(|_| data.u16()).collect::<Option<_>>()?;
    data.is_empty().then_some((name, wanted))
}

fn parse_contexts(data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let mut data = Cursor::new(data);
    let name = data.string().filter(|name| name.len() <= NAME_MAX)?;
    let count = data.u32()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(data.string()?);
    }
    data.is_empty().then_some((name, queries))
}

fn reply_context(out: &mut Vec<u8>, code: u32, id: u32) {
    let mut context = id.to_be_bytes().to_vec();
    context.extend(proto::BASE_ALLOCATION.as_bytes());
    reply(out, code, proto::REP_META_CONTEXT, &context);
}

/// Appends an option reply.
pub(super) fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend(proto::OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(len_of(data).to_be_bytes());
    out.extend(data);
}

fn len_of(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}
