//! The rows of the dialects: what ends the content, and which replies the client gets.
//!
//! Knows no grammar.

/// How a request is spelled. It decides how the content ends, and which replies the client gets. Nothing is negotiated: the
/// first bytes tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The network tutorials': a bare name; `ok`; content until FIN; never another word.
    #[default]
    Classic,
    /// `NAME LF`; content at once, until FIN; one receipt line.
    Line,
    /// `/put ATTRS NAME LF`; content at once, as long as the request says; a receipt line; the next request.
    Put,
    /// `/ask ATTRS NAME LF`; `ok OFFSET LF`; then as put.
    Ask,
    /// `PUT /NAME` of HTTP/1.1; content at once, as long as the request says; an answer; the next request.
    Http,
    /// The same with `Expect: 100-continue`; `100 Continue`; then as HTTP.
    HttpExpect,
    /// A file of a form, `POST /` of HTTP/1.1; its end is the next boundary; one answer for all files of the form.
    HttpForm,
}

/// What the two sides of a dialect may expect of one another.
#[derive(Debug)]
pub(in crate::proto) struct Manners {
    /// How the content is divided into chunks if the request gives no size. Then a broken connection is not mistaken for the
    /// end, and another request may follow. `None`: no sizes and no chunks, the content ends with the stream.
    pub(in crate::proto) chunks: Option<Chunks>,
    /// Refused content is discarded up to its end, and the next request is served. If not, a refusal before the end of the
    /// content is the last reply.
    pub(in crate::proto) skips_refused: bool,
    /// When the client is told to send.
    pub(in crate::proto) ok: Ok,
    /// The client gets a receipt or a refusal for its file. Without one, only the end of the stream tells the outcome.
    pub(in crate::proto) has_receipt: bool,
}

/// How chunks are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Chunks {
    /// A decimal size and a line feed, the chunk, and a line for the digest if one is promised.
    Lines,
    /// A hex size and CR LF, the chunk and CR LF, and trailers that end with an empty line (RFC 9112, 7.1).
    Http,
}

/// When the client is told to send its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Ok {
    /// Before any content: the client waits for it.
    AtOnce,
    /// Only if the client falls silent: one that keeps sending may not be reading.
    AfterSilence,
    /// Never: the client does not wait.
    Never,
}

impl Dialect {
    /// All dialects, in their order.
    pub const ALL: [Self; 7] =
        [Self::Classic, Self::Line, Self::Put, Self::Ask, Self::Http, Self::HttpExpect, Self::HttpForm];

    /// The dialects that a client can use, by their names on the command line.
    pub const WORDS: &[(&str, Self)] = &[
        ("classic", Self::Classic),
        ("line", Self::Line),
        ("put", Self::Put),
        ("ask", Self::Ask),
        ("http", Self::Http),
        ("http-expect", Self::HttpExpect),
    ];

    /// Whether a client is told that its file is stored. If not, a clean end of the connection tells it.
    pub fn has_receipt(self) -> bool {
        self.manners().has_receipt
    }

    /// Its name on the command line and in the log.
    pub fn word(self) -> &'static str {
        if self == Self::HttpForm {
            return "http-form";
        }
        Self::WORDS.iter().find(|(_, dialect)| *dialect == self).expect("every dialect has a word").0
    }

    /// Whether a size or chunks mark the end of the content, so that a broken connection is not mistaken for it and another
    /// request may follow.
    pub fn is_framed(self) -> bool {
        self.manners().chunks.is_some()
    }

    /// Whether the client sends no content before it has its answer. After a refusal none follows.
    pub(in crate::proto) fn waits_for_ok(self) -> bool {
        self.manners().ok == Ok::AtOnce
    }

    /// Whether it is HTTP. All requests of such a connection are HTTP.
    pub fn speaks_http(self) -> bool {
        matches!(self, Self::Http | Self::HttpExpect | Self::HttpForm)
    }

    pub(in crate::proto) fn manners(self) -> &'static Manners {
        match self {
            Self::Classic => &Manners { chunks: None, skips_refused: false, ok: Ok::AtOnce, has_receipt: false },
            Self::Line => &Manners { chunks: None, skips_refused: false, ok: Ok::AfterSilence, has_receipt: true },
            Self::Put => {
                &Manners { chunks: Some(Chunks::Lines), skips_refused: true, ok: Ok::Never, has_receipt: true }
            }
            Self::Ask => {
                &Manners { chunks: Some(Chunks::Lines), skips_refused: true, ok: Ok::AtOnce, has_receipt: true }
            }
            Self::Http => {
                &Manners { chunks: Some(Chunks::Http), skips_refused: false, ok: Ok::Never, has_receipt: true }
            }
            Self::HttpForm => {
                &Manners { chunks: Some(Chunks::Http), skips_refused: true, ok: Ok::Never, has_receipt: true }
            }
            Self::HttpExpect => {
                &Manners { chunks: Some(Chunks::Http), skips_refused: false, ok: Ok::AtOnce, has_receipt: true }
            }
        }
    }
}
