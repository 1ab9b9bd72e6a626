//! What must hold of every conversation in HTTP, and of the header of a proxy, whatever comes in.
//!
//! The fuzz targets (`fuzz/`) look for input that breaks it. What they kept is in `fuzz/corpus`, and `corpus.rs` runs that.
//! The driver ([`crate::conversation`]) checks what concerns one upload.

use intake::proto::{Origin, PROXY_SIGNATURE, Page, ProxyHeader, Rules, Web};

use crate::conversation::{Server, Transcript, drive};

/// A request that follows an input which is the content of one. It may be run only where the input ends what is before it.
const NEXT: &[u8] = b"PUT /next HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nnext";

/// What an input is.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A whole conversation.
    Head,
    /// The chunks of a PUT.
    Chunks,
    /// A form whose boundary is `b`.
    Multipart,
    /// The header of a proxy, and what follows it.
    Proxied,
}

impl Target {
    #[allow(dead_code, reason = "a fuzz target is one of them")]
    pub const ALL: [(&str, Self); 4] =
        [("head", Self::Head), ("chunks", Self::Chunks), ("multipart", Self::Multipart), ("proxied", Self::Proxied)];

    /// The conversations that `input` makes.
    fn conversations(self, input: &[u8]) -> Vec<Vec<u8>> {
        let (size, half) = (input.len(), input.len() / 2);
        let form = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n";
        let put = "PUT /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
        let (first, second) = input.split_at(half);
        let request = |head: String, content: &[u8]| [head.as_bytes(), content, NEXT].concat();
        match self {
            Self::Head => vec![input.to_vec()],
            Self::Chunks => {
                ["", "Trailer: Repr-Digest\r\n"].map(|field| request(format!("{put}{field}\r\n"), input)).into()
            }
            Self::Proxied => Vec::new(),
            Self::Multipart if half == 0 => Vec::new(),
            Self::Multipart => vec![
                request(format!("{form}Content-Length: {size}\r\n\r\n"), input),
                request(
                    format!("{form}Transfer-Encoding: chunked\r\n\r\n{half:x}\r\n"),
                    &[first, format!("\r\n{:x}\r\n", second.len()).as_bytes(), second, b"\r\n0\r\n\r\n"].concat(),
                ),
            ],
        }
    }

    /// Checks `input`, cut in a few ways that depend on it.
    ///
    /// # Panics
    /// If something does not hold.
    #[allow(dead_code, reason = "for the fuzz targets")]
    pub fn check(self, input: &[u8]) {
        if let Self::Proxied = self {
            check_proxied(input);
        }
        for conversation in self.conversations(input) {
            let whole = whole(&conversation);
            for seed in 0..3 {
                same(&conversation, &cuts(&conversation, seed), &whole);
            }
            same(&conversation, &Vec::from_iter(0..conversation.len()), &whole);
        }
    }

    /// Checks `input`, whole, by bytes, and cut at every place unless it is long.
    ///
    /// # Panics
    /// If something does not hold.
    #[allow(dead_code, reason = "for the tests")]
    pub fn check_every_cut(self, input: &[u8]) {
        self.check(input);
        for conversation in self.conversations(input).iter().filter(|conversation| conversation.len() <= 1024) {
            let whole = whole(conversation);
            (0..conversation.len()).for_each(|cut| same(conversation, &[cut], &whole));
        }
    }
}

/// The header is the same however it is cut, and has the length that it tells.
fn check_proxied(input: &[u8]) {
    let whole = take_header(input, &[]);
    for cuts in (0..input.len()).map(|cut| vec![cut]).chain([Vec::from_iter(0..input.len())]) {
        assert_eq!(take_header(input, &cuts), whole, "cut at {cuts:?}");
    }
    if let Some(Ok((_, taken))) = whole {
        assert!(input.starts_with(PROXY_SIGNATURE));
        assert_eq!(taken, 16 + usize::from(u16::from_be_bytes([input[14], input[15]])));
        assert!(taken <= 16 + 536);
    }
}

/// What a header says, and how long it is; or why it is refused.
fn take_header(input: &[u8], cuts: &[usize]) -> Option<Result<(Origin, usize), String>> {
    let mut header = ProxyHeader::default();
    let edges = Vec::from_iter([0].iter().chain(cuts).chain([&input.len()]).copied());
    edges.windows(2).find_map(|edges| {
        let mut piece = &input[edges[0]..edges[1]];
        let taken = header.take(&mut piece)?;
        Some(taken.map(|origin| (origin, edges[1] - piece.len())).map_err(|refusal| refusal.words.to_string()))
    })
}

/// A server without state of its own. No input is long enough to reach the size limit by its content.
fn server(splices: bool) -> Server {
    let page = Page { html: "<p>page".into(), policy: "default-src 'none'".into() };
    let web = Web { hosts: vec!["drop.example".into()], origins: vec!["https://app.example".into()], page: Some(page) };
    Server { splices, ..Server::with(Rules { web, max_file_size: Some(1 << 20), ..Rules::default() }) }
}

/// What `conversation` gives when it comes all at once.
fn whole(conversation: &[u8]) -> Transcript {
    let whole = drive(server(false), conversation, &[], b"");
    if whole.said.starts_with("HTTP/1.1 ") {
        nothing_follows_the_last_answer(&whole.said);
        let contents = contents(conversation);
        // A file of a form can be refused alone.
        let has_form = conversation.windows(5).any(|word| word == b"POST ");
        let agrees = if has_form { is_within(&whole.content, &contents) } else { contents.starts_with(&whole.content) };
        assert!(agrees, "{} is not in {}", whole.content.escape_ascii(), contents.escape_ascii());
    }
    whole
}

/// Whether `all` holds these bytes in this order, perhaps with others between them.
fn is_within(some: &[u8], all: &[u8]) -> bool {
    let mut all = all.iter();
    some.iter().all(|byte| all.any(|other| other == byte))
}

fn same(conversation: &[u8], cuts: &[usize], whole: &Transcript) {
    for splices in [false, true] {
        assert_eq!(&drive(server(splices), conversation, cuts, b""), whole, "splices: {splices}, cut at {cuts:?}");
    }
}

/// Up to four places to cut.
fn cuts(conversation: &[u8], seed: u64) -> Vec<usize> {
    // FNV-1a, with a seed.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = conversation.iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| mix(hash, *byte));
    let places = (0..4).map(|index| (hash >> (16 * index) & 0xffff) as usize % (conversation.len() + 1));
    let mut cuts = Vec::from_iter(places);
    cuts.sort_unstable();
    cuts
}

/// An answer that closes is the last one, and so is a refusal after which the end of the content is not known.
fn nothing_follows_the_last_answer(said: &str) {
    const LAST: [&str; 10] = ["400", "411", "413", "415", "417", "421", "431", "501", "503", "505"];
    let is_answer = |rest: &&str| rest.starts_with(|first: char| first.is_ascii_digit());
    let answers: Vec<&str> = said.split("HTTP/1.1 ").filter(is_answer).collect();
    for (index, answer) in answers.iter().enumerate() {
        let closes = answer.contains("\r\nConnection: close\r\n");
        assert!(closes || !LAST.iter().any(|last| answer.starts_with(last)), "it must close: {said}");
        assert!(!closes || index + 1 == answers.len(), "something follows the last answer: {said}");
    }
}

/// The contents of all requests, one after the other, as a reader sees them that takes whatever it is sent; of a form, those
/// of its files. Where the server is stricter it stops earlier; it must never find an end in another place.
fn contents(mut input: &[u8]) -> Vec<u8> {
    let mut contents = Vec::new();
    while let Some(head) = take_until(&mut input, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(head);
        let value = |name: &str| {
            let fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
            fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
        };
        let mut content = Vec::new();
        if value("Transfer-Encoding").is_some() {
            take_chunks(&mut input, &mut content);
        } else if let Some(length) = value("Content-Length").and_then(|length| length.parse().ok()) {
            take(&mut input, length, &mut content);
        }
        match value("Content-Type").filter(|_| head.starts_with("POST ")).and_then(|kind| kind.split_once("boundary="))
        {
            Some((_, boundary)) => add_files(&content, boundary, &mut contents),
            None => contents.extend(content),
        }
    }
    contents
}

fn take_chunks(input: &mut &[u8], content: &mut Vec<u8>) {
    while let Some(size) = take_until(input, b"\r\n").and_then(chunk_size) {
        if size == 0 {
            while take_until(input, b"\r\n").is_some_and(|trailer| !trailer.is_empty()) {}
            return;
        }
        take(input, size, content);
        take(input, 2, &mut Vec::new());
    }
}

/// Adds what the files of a form hold. A part is a file where its head speaks of one.
fn add_files(form: &[u8], boundary: &str, contents: &mut Vec<u8>) {
    let boundary = boundary.split(';').next().unwrap_or_default().trim().trim_matches('"');
    let delimiter = format!("\r\n--{boundary}");
    let form = [b"\r\n", form, delimiter.as_bytes()].concat();
    let mut rest = form.as_slice();
    take_until(&mut rest, delimiter.as_bytes());
    while !rest.starts_with(b"--") {
        let Some(head) = take_until(&mut rest, b"\r\n\r\n") else { return };
        let Some(part) = take_until(&mut rest, delimiter.as_bytes()) else { return };
        if String::from_utf8_lossy(head).to_ascii_lowercase().contains("filename") {
            contents.extend_from_slice(part);
        }
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    u64::from_str_radix(line.split(';').next()?, 16).ok()
}

fn take(input: &mut &[u8], count: u64, taken: &mut Vec<u8>) {
    let (content, rest) = input.split_at(usize::try_from(count).unwrap_or(usize::MAX).min(input.len()));
    taken.extend_from_slice(content);
    *input = rest;
}

/// What stands before the next `end`, which is taken too.
fn take_until<'a>(input: &mut &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let at = input.windows(end.len()).position(|window| window == end)?;
    let (before, rest) = input.split_at(at);
    *input = &rest[end.len()..];
    Some(before)
}
