//! The record beside a kept file: what the file is to become, and up to where it can be resumed.
//!
//! ```text
//!   byte 0      1024     1536     2048     2560     3072    7232
//!     | claims  | state  | state  | state  | state  | terms | end |
//! ```
//!
//! **Claims** are lines, of which the last whole one counts: `SIZE DIGEST NAME LF`. Size and digest are `-` until they are
//! known. What becomes known later is added as a further line, so that what was there before stays whole.
//!
//! **States** let an upload be resumed without reading its content again: `OFFSET ALGORITHM STATE BOOT SEAL LF`, where
//! algorithm and state of the digest are `-` if none is promised. The state with the highest offset counts, if the file is
//! as long as that. The content is not compared with it, so **a state is written only after its content is synced**; `BOOT` is then `-`. If nothing is
//! synced it is the id of the boot that the state was written in, and the state counts in that boot only: a power cut may
//! have taken the content.
//!
//! **Terms** belong to an upload whose id the server has made. Its later requests have only the id, so the record has the
//! rest: `ON-EXISTS ALGORITHM MTIME NOTE LF`.
//!
//! The **end** is the receipt of such an upload: `SIZE DIGEST SEAL NAME LF`. It is written before the file gets that name, so
//! the upload is stored when the record has an end and its file has gone. Until the record expires it answers a client that
//! has not heard the receipt, whichever server that client asks.
//!
//! Each state is a sector of its own with a checksum, the seal, so that a torn one is recognized. The seal also covers the
//! first claim, the terms and the identity of the file: after a power cut a record may be older than the file beside it, and
//! a state must not be taken for one of another upload, or of an earlier file of this one. So an upload that begins anew
//! begins a new file. The state that an upload was resumed from is not overwritten while the upload continues: the client
//! was told its offset.
//!
//! Knows bytes only. Reading and writing them, and the sync before, are the owner's.

use std::num::NonZeroU64;

use super::{Checkpoint, Target, Terms};
use crate::proto::{Algorithm, Digest, Hasher, Name, NamePolicy, OnExists, Promise, Receipt, ResumeId};

/// [`Record::CLAIMS_BYTES`], where its reason stands.
const CLAIMS_BYTES: usize = Record::CLAIMS_BYTES;
/// [`Record::STATE_BYTES`], where its reason stands.
const STATE_BYTES: usize = Record::STATE_BYTES;
/// The one that the client was told, and the last three.
const STATES: usize = 4;
/// Where the terms begin, in bytes.
const TERMS_AT: usize = CLAIMS_BYTES + STATES * STATE_BYTES;
/// More than the longest terms take, in bytes.
const TERMS_MAX_BYTES: usize = Record::NOTE_MAX_BYTES + 64;
/// Where the end begins, in bytes.
const END_AT: usize = TERMS_AT + TERMS_MAX_BYTES;
/// More than the longest end takes, in bytes: a size, a digest, a seal and a name.
const END_BYTES: usize = 512;
/// For a boot: the content is synced. For anything else: there is none, or it is not known yet.
const NONE: &str = "-";

/// What the owner of a record has to know to add to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Checksum of the file's identity, the first claim and the terms: a part of each seal.
    owner_sum: u32,
    /// The length of its claims, in bytes.
    claims_bytes: usize,
    /// The state that was resumed from.
    resumed: Option<usize>,
    /// The state to be overwritten next.
    next: usize,
}

/// The file beside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Tells it from other files, past and future ones.
    pub id: u32,
    /// In bytes.
    pub length: u64,
}

/// Bytes to be written to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where, counted from its beginning.
    pub at: u64,
    /// They cover a part of it, or all.
    pub bytes: Vec<u8>,
}

/// What an upload finds in its record.
#[derive(Debug)]
pub struct Found {
    /// To add to it.
    pub record: Record,
    /// From where the upload can be resumed. Content beyond it has to be cut off; without it, all content.
    pub checkpoint: Option<Checkpoint>,
    /// To be written before any content.
    pub patch: Option<Patch>,
}

impl Record {
    /// What the claims take, in bytes: more than two of the longest name.
    pub const CLAIMS_BYTES: usize = 1024;
    /// The most that a record takes, in bytes.
    pub const MAX_BYTES: usize = END_AT + END_BYTES;
    /// What one state takes, in bytes: a sector, which is written as a whole.
    pub const STATE_BYTES: usize = 512;
    /// The longest [`Target::note`], in bytes: metadata of several names of a file, in base64.
    pub const NOTE_MAX_BYTES: usize = 4096;

    /// What `target` finds in the record `bytes` beside this `content`, in this `boot`. An upload whose id the server has
    /// just made finds nothing.
    pub fn find(bytes: &[u8], target: &Target, content: Content, boot: Option<&str>) -> Found {
        let wanted = claim_for(target.size, target.promise, target.name);
        if target.resume.is_some_and(ResumeId::is_made) {
            return Self::begin(&wanted, &terms_for(target), target.promise, content);
        }
        let claims = claims_in(bytes);
        let latest = claims.split_inclusive('\n').next_back();
        if !latest.is_some_and(|latest| agree(latest, &wanted)) {
            return Self::anew(&wanted, "", content);
        }
        let is_news = known_digest(target.promise).is_some() && latest != Some(&wanted);
        let more = if is_news { wanted.as_str() } else { "" };
        let owner_sum = owner_sum(content, claims, "");
        let length = content.length.min(target.size.unwrap_or(0));
        let states = states_in(bytes, owner_sum, target.promise, boot);
        let Some((slot, checkpoint)) = last(states, length) else {
            return Self::anew(&[claims, more].concat(), "", content);
        };
        let record = Self::resumed(owner_sum, claims.len() + more.len(), slot);
        let patch =
            is_news.then(|| Patch { at: claims.len() as u64, bytes: padded(more, CLAIMS_BYTES - claims.len()) });
        Found { record, checkpoint: Some(checkpoint), patch }
    }

    /// What the record `bytes` beside this `content` tells in this `boot` of an upload whose id the server has made. `None`:
    /// it was never begun as a whole, or belongs to another file.
    pub fn read(bytes: &[u8], content: Content, boot: Option<&str>) -> Option<(Terms, Found)> {
        let claims = claims_in(bytes);
        let told = whole_lines(bytes.get(TERMS_AT..)?);
        let mut terms = parse_terms(claims, told)?;
        // The server was killed before the file had its name.
        terms.size = terms.size.or(Self::read_end(bytes).map(|receipt| receipt.size));
        let owner_sum = owner_sum(content, claims, told);
        let length = content.length.min(terms.size.unwrap_or(u64::MAX));
        let states = states_in(bytes, owner_sum, terms.promise, boot);
        let (slot, checkpoint) = last(states, length)?;
        let record = Self::resumed(owner_sum, claims.len(), slot);
        Some((terms, Found { record, checkpoint: Some(checkpoint), patch: None }))
    }

    fn resumed(owner_sum: u32, claims_bytes: usize, slot: usize) -> Self {
        Self { owner_sum, claims_bytes, resumed: Some(slot), next: (slot + 1) % STATES }
    }

    /// For an upload that begins at its first byte: no state is left.
    fn anew(claims: &str, terms: &str, content: Content) -> Found {
        let mut bytes = padded(claims, TERMS_AT);
        bytes.extend_from_slice(terms.as_bytes());
        let owner_sum = owner_sum(content, claims, terms);
        let record = Self { owner_sum, claims_bytes: claims.len(), resumed: None, next: 0 };
        Found { record, checkpoint: None, patch: Some(Patch { at: 0, bytes }) }
    }

    /// For an upload whose id the server has made: its first state is that of no content.
    fn begin(claims: &str, terms: &str, promise: Option<Promise>, content: Content) -> Found {
        let hasher = promise.map(|promise| Hasher::new(promise.algorithm()));
        Found { checkpoint: Some(Checkpoint { offset: 0, hasher }), ..Self::anew(claims, terms, content) }
    }

    /// Whether the upload begins at its first byte, in a new file.
    pub fn is_new(&self) -> bool {
        self.resumed.is_none()
    }

    /// Adds a state. Its content has been written and synced; if it is not synced, the state counts in this `boot` only.
    pub fn add(&mut self, checkpoint: &Checkpoint, boot: Option<&str>) -> Patch {
        let slot = self.next;
        let following = |slot| (slot + 1) % STATES;
        self.next = following(slot);
        if Some(self.next) == self.resumed {
            self.next = following(self.next);
        }
        let digest =
            checkpoint.hasher.as_ref().map(|hasher| format!("{} {}", hasher.algorithm().as_str(), hasher.state()));
        let digest = digest.unwrap_or_else(|| format!("{NONE} {NONE}"));
        let state = format!("{} {digest} {}", checkpoint.offset, boot.unwrap_or(NONE));
        let line = format!("{state} {:08x}\n", seal(self.owner_sum, &state));
        Patch { at: (CLAIMS_BYTES + slot * STATE_BYTES) as u64, bytes: padded(&line, STATE_BYTES) }
    }

    /// Adds that the size has become known, of an upload with this promise and name. There is room for that once.
    pub fn add_size(&mut self, size: u64, promise: Option<Promise>, name: &Name) -> Patch {
        let line = claim_for(Some(size), promise, name);
        let (at, room) = (self.claims_bytes, CLAIMS_BYTES.saturating_sub(self.claims_bytes));
        self.claims_bytes += line.len();
        Patch { at: at as u64, bytes: padded(&line, room) }
    }
}

impl Record {
    /// Writes the end, before the file gets the name in `receipt`.
    pub fn end(receipt: &Receipt) -> Patch {
        let Receipt { size, digest, stored_name } = receipt;
        let state = format!("{size} {}", word(*digest));
        let line = format!("{state} {:08x} {stored_name}\n", seal_of_end(&state, stored_name));
        Patch { at: END_AT as u64, bytes: padded(&line, END_BYTES) }
    }

    /// Takes the end back: the file gets no name.
    pub fn no_end() -> Patch {
        Patch { at: END_AT as u64, bytes: vec![0; END_BYTES] }
    }

    /// The receipt of the upload with the record `bytes`. It counts if the file has gone.
    pub fn read_end(bytes: &[u8]) -> Option<Receipt> {
        let line = whole_lines(bytes.get(END_AT..)?).lines().next()?;
        let mut words = line.splitn(4, ' ');
        let (size, digest, seal, name) = (words.next()?, words.next()?, words.next()?, words.next()?);
        if u32::from_str_radix(seal, 16) != Ok(seal_of_end(&format!("{size} {digest}"), name)) {
            return None;
        }
        let (size, digest) = (size.parse().ok()?, parse_word(digest, parse_digest)?);
        Some(Receipt { size, digest, stored_name: name.into() })
    }
}

fn seal_of_end(state: &str, name: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(state.as_bytes()), name.as_bytes())
}

/// The states that are whole, belong to this file and this kind of digest, and whose content has lasted.
fn states_in<'a>(
    bytes: &'a [u8],
    owner_sum: u32,
    promise: Option<Promise>,
    boot: Option<&'a str>,
) -> impl Iterator<Item = (usize, Checkpoint)> + 'a {
    let algorithm = promise.map(|promise| promise.algorithm());
    let states = (0..STATES).filter_map(move |slot| Some((slot, read_state(bytes, slot, owner_sum, boot)?)));
    states.filter(move |(_, checkpoint)| checkpoint.hasher.as_ref().map(Hasher::algorithm) == algorithm)
}

/// The state that counts for a file of `length` bytes. None does if there is one of more: content was lost, and when the
/// file has grown again, that state would be taken for one of the new content.
fn last(states: impl Iterator<Item = (usize, Checkpoint)>, length: u64) -> Option<(usize, Checkpoint)> {
    states.max_by_key(|(_, checkpoint)| checkpoint.offset).filter(|(_, checkpoint)| checkpoint.offset <= length)
}

fn read_state(bytes: &[u8], slot: usize, owner_sum: u32, boot: Option<&str>) -> Option<Checkpoint> {
    let start = CLAIMS_BYTES + slot * STATE_BYTES;
    let line = whole_lines(bytes.get(start..(start + STATE_BYTES).min(bytes.len()))?).lines().next()?;
    let (state, sealed) = line.rsplit_once(' ')?;
    if u32::from_str_radix(sealed, 16) != Ok(seal(owner_sum, state)) {
        return None;
    }
    let mut words = state.split(' ');
    let offset = words.next()?.parse().ok()?;
    let hasher = match (words.next()?, words.next()?) {
        (NONE, NONE) => None,
        (algorithm, state) => Some(Hasher::restore(Algorithm::parse(algorithm)?, state)?),
    };
    let written_in = words.next()?;
    (written_in == NONE || Some(written_in) == boot).then_some(Checkpoint { offset, hasher })
}

fn seal(owner_sum: u32, state: &str) -> u32 {
    crc32c::crc32c_append(owner_sum, state.as_bytes())
}

fn owner_sum(content: Content, claims: &str, terms: &str) -> u32 {
    let first = claims.split_inclusive('\n').next().unwrap_or_default();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&content.id.to_be_bytes()), first.as_bytes());
    crc32c::crc32c_append(sum, terms.as_bytes())
}

fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_owned();
    bytes.resize(length.max(bytes.len()), 0);
    bytes
}

fn claims_in(bytes: &[u8]) -> &str {
    whole_lines(bytes.get(..CLAIMS_BYTES).unwrap_or(bytes))
}

/// The whole lines of text at the beginning of `bytes`.
fn whole_lines(bytes: &[u8]) -> &str {
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let text = text.split('\0').next().unwrap_or_default();
    &text[..text.rfind('\n').map_or(0, |end| end + 1)]
}

fn known_digest(promise: Option<Promise>) -> Option<Digest> {
    promise?.known()
}

/// The word for something that may not be known.
fn word(known: Option<impl ToString>) -> String {
    known.map_or(NONE.to_owned(), |known| known.to_string())
}

/// Reads a [`word`].
fn parse_word<T>(word: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    if word == NONE { Some(None) } else { parse(word).map(Some) }
}

fn claim_for(size: Option<u64>, promise: Option<Promise>, name: &Name) -> String {
    format!("{} {} {name}\n", word(size), word(known_digest(promise)))
}

fn parse_digest(word: &str) -> Option<Digest> {
    let (algorithm, hex) = word.split_once(':')?;
    Digest::parse(Algorithm::parse(algorithm)?, hex)
}

/// Size, digest and name of a claim.
fn parts(claim: &str) -> Option<(&str, &str, &str)> {
    let (size, rest) = claim.strip_suffix('\n')?.split_once(' ')?;
    let (digest, name) = rest.split_once(' ')?;
    Some((size, digest, name))
}

/// Whether two claims are for the same file. A digest that one of them does not know yet is no difference.
fn agree(a: &str, b: &str) -> bool {
    let (Some((size, digest, name)), Some((other_size, other_digest, other_name))) = (parts(a), parts(b)) else {
        return false;
    };
    let digests_agree = digest == other_digest || digest == NONE || other_digest == NONE;
    size == other_size && name == other_name && digests_agree
}

fn terms_for(target: &Target) -> String {
    let algorithm = target.promise.map(|promise| promise.algorithm().as_str());
    format!("{} {} {} {}\n", target.on_exists.as_str(), word(algorithm), word(target.mtime), target.note)
}

fn parse_terms(claims: &str, terms: &str) -> Option<Terms> {
    let (_, digest, name) = parts(claims.split_inclusive('\n').next()?)?;
    let (size, _, later_name) = parts(claims.split_inclusive('\n').next_back()?)?;
    let digest = parse_word(digest, parse_digest)?;
    let mut words = terms.strip_suffix('\n')?.splitn(4, ' ');
    let on_exists = OnExists::parse(words.next()?)?;
    let algorithm = parse_word(words.next()?, Algorithm::parse)?;
    let mtime = parse_word(words.next()?, |word| word.parse::<NonZeroU64>().ok())?;
    let note = words.next()?.into();
    let size = parse_word(size, |word| word.parse().ok())?;
    let promise = digest.map(Promise::Known).or(algorithm.map(Promise::Trailer));
    let name = Name::parse(name.as_bytes(), NamePolicy::default()).ok().filter(|name| name.as_str() == later_name)?;
    Some(Terms { name, on_exists, size, promise, mtime, note })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Name, NamePolicy, OnExists};

    const LATER: Promise = Promise::Trailer(Algorithm::Sha256);
    const DIGEST: Promise = Promise::Known(Digest::Sha256([7; 32]));
    const SIZE: u64 = u64::MAX;

    fn with_target<T>(name: &str, promise: Promise, act: impl FnOnce(&Target) -> T) -> T {
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
        act(&Target { size: Some(SIZE), promise: Some(promise), ..Target::new(&name, OnExists::Rename) })
    }

    fn find(bytes: &[u8], name: &str, promise: Promise, length: u64) -> Found {
        find_in(bytes, name, promise, length, None)
    }

    fn find_in(bytes: &[u8], name: &str, promise: Promise, length: u64, boot: Option<&str>) -> Found {
        with_target(name, promise, |target| Record::find(bytes, target, Content { id: 1, length }, boot))
    }

    fn apply(bytes: &mut Vec<u8>, patch: &Patch) {
        let (start, end) = (patch.at as usize, patch.at as usize + patch.bytes.len());
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(&patch.bytes);
        assert!(bytes.len() <= Record::MAX_BYTES);
    }

    /// Begins a record for an upload of this name.
    fn begin(name: &str, promise: Promise) -> (Vec<u8>, Record) {
        let (mut bytes, found) = (Vec::new(), find(&[], name, promise, 0));
        assert!(found.checkpoint.is_none());
        apply(&mut bytes, &found.patch.expect("it is new"));
        (bytes, found.record)
    }

    fn add(bytes: &mut Vec<u8>, record: &mut Record, offset: u64) {
        apply(bytes, &record.add(&Checkpoint { offset, hasher: Some(hasher(offset)) }, None));
    }

    /// In a state of its own for each offset.
    fn hasher(offset: u64) -> Hasher {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&offset.to_be_bytes());
        hasher
    }

    fn offset(bytes: &[u8], name: &str, length: u64) -> u64 {
        let checkpoint = find(bytes, name, LATER, length).checkpoint;
        checkpoint.map_or(0, |checkpoint| {
            assert_eq!(checkpoint.hasher.unwrap().state(), hasher(checkpoint.offset).state());
            checkpoint.offset
        })
    }

    #[test]
    fn the_last_state_counts_and_none_if_the_file_is_shorter() {
        let (mut bytes, mut record) = begin("a", LATER);
        for so_far in 1..=10 {
            add(&mut bytes, &mut record, so_far * 100);
            assert_eq!(offset(&bytes, "a", SIZE), so_far * 100);
        }
        assert_eq!(offset(&bytes, "a", 1000), 1000);
        assert_eq!(offset(&bytes, "a", 999), 0);
        assert_eq!(offset(&bytes, "b", 1000), 0);
    }

    #[test]
    fn the_state_that_was_resumed_from_stays() {
        for resumed in [100, 200, 300, 400, 500] {
            let (mut bytes, mut record) = begin("a", LATER);
            (1..=resumed / 100).for_each(|so_far| add(&mut bytes, &mut record, so_far * 100));
            let mut record = find(&bytes, "a", LATER, resumed).record;
            for more in 1..10 {
                add(&mut bytes, &mut record, resumed + more);
                assert_eq!(offset(&bytes, "a", SIZE), resumed + more);
                let mut torn = bytes.clone();
                for state in torn[CLAIMS_BYTES..].chunks_mut(STATE_BYTES) {
                    if !state.starts_with(format!("{resumed} ").as_bytes()) {
                        state.fill(0);
                    }
                }
                assert_eq!(offset(&torn, "a", SIZE), resumed);
            }
        }
    }

    #[test]
    fn a_state_of_content_that_was_not_synced_counts_until_the_next_boot() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        apply(&mut bytes, &record.add(&Checkpoint { offset: 200, hasher: Some(hasher(200)) }, Some("boot-1")));
        let offset_in = |boot| find_in(&bytes, "a", LATER, SIZE, boot).checkpoint.map(|held| held.offset);
        assert_eq!(
            [offset_in(Some("boot-1")), offset_in(Some("boot-2")), offset_in(None)],
            [Some(200), Some(100), Some(100)]
        );
    }

    #[test]
    fn one_changed_byte_of_a_state_makes_it_none() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        add(&mut bytes, &mut record, 200);
        for (at, byte) in bytes.clone().into_iter().enumerate().skip(CLAIMS_BYTES + STATE_BYTES).take(STATE_BYTES) {
            if byte != 0 {
                bytes[at] = byte.wrapping_add(1);
                assert_eq!(offset(&bytes, "a", SIZE), 100, "{at}");
                bytes[at] = byte;
            }
        }
        assert_eq!(offset(&bytes, "a", SIZE), 200);
    }

    #[test]
    fn the_states_of_another_upload_are_not_taken_for_ones_of_this() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        let (other, _) = begin("b", LATER);
        // As if of the other's record only the claim had reached the disk.
        bytes[..CLAIMS_BYTES].copy_from_slice(&other[..CLAIMS_BYTES]);
        assert_eq!(offset(&bytes, "b", SIZE), 0);
    }

    #[test]
    fn the_states_of_an_earlier_file_are_not_taken_for_ones_of_this() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        let held_by = |id| {
            let content = Content { id, length: SIZE };
            with_target("a", LATER, |target| Record::find(&bytes, target, content, None)).checkpoint.is_some()
        };
        assert_eq!((held_by(1), held_by(2)), (true, false));
    }

    #[test]
    fn what_begins_anew_leaves_no_state() {
        let (mut bytes, mut record) = begin("a", LATER);
        add(&mut bytes, &mut record, 100);
        let patch = find(&bytes, "a", LATER, 99).patch.expect("nothing fits");
        apply(&mut bytes, &patch);
        assert_eq!(offset(&bytes, "a", SIZE), 0);
        assert!(bytes.starts_with(format!("{SIZE} - a\n").as_bytes()), "the claim stays");
    }

    #[test]
    fn a_digest_that_comes_to_be_known_leaves_what_was_known_before() {
        let name = "n".repeat(Name::MAX_BYTES);
        let (mut before, mut record) = begin(&name, LATER);
        add(&mut before, &mut record, 100);
        let patch = find(&before, &name, DIGEST, 100).patch.expect("it is new");
        let mut after = before.clone();
        apply(&mut after, &patch);
        let first = before.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(after[..first], before[..first]);
        let other = Promise::Known(Digest::Sha256([8; 32]));
        for torn in first..CLAIMS_BYTES {
            let torn_bytes = [&after[..torn], &before[torn..]].concat();
            let is_known = find(&torn_bytes, &name, other, 100).checkpoint.is_none();
            assert_eq!(is_known, after[torn..CLAIMS_BYTES].iter().all(|byte| *byte == 0), "{torn}");
            assert_eq!(offset(&torn_bytes, &name, 100), 100, "{torn}");
            let mut again = torn_bytes.clone();
            find(&torn_bytes, &name, DIGEST, 100).patch.inspect(|patch| apply(&mut again, patch));
            assert!(again == after, "{torn}");
        }
        assert_eq!(find(&after, &name, DIGEST, 100).patch, None, "however often it is told");
        assert_eq!(find(&after, &name, LATER, 100).patch, None);
    }

    /// Begins a record for an upload under an id of the server's making.
    fn begin_made(promise: Option<Promise>) -> (Vec<u8>, Record) {
        let (id, content) = (ResumeId::made(1), Content { id: 1, length: 0 });
        let name = Name::parse(b"a b", NamePolicy::default()).unwrap();
        let target =
            Target { promise, resume: Some(&id), note: "of several words", ..Target::new(&name, OnExists::Rename) };
        let Found { mut record, checkpoint, patch } = Record::find(&[], &target, content, None);
        let mut bytes = Vec::new();
        apply(&mut bytes, &patch.unwrap());
        assert_eq!(Record::read(&bytes, content, None).map(|_| ()), None, "it is not begun before its first state");
        apply(&mut bytes, &record.add(&checkpoint.unwrap(), None));
        (bytes, record)
    }

    fn read(bytes: &[u8], length: u64) -> Option<(Terms, u64)> {
        let (terms, found) = Record::read(bytes, Content { id: 1, length }, None)?;
        Some((terms, found.checkpoint?.offset))
    }

    #[test]
    fn an_upload_is_found_by_its_id_with_its_last_state_if_the_file_is_as_long() {
        for promise in [None, Some(LATER), Some(DIGEST)] {
            let (mut bytes, mut record) = begin_made(promise);
            assert_eq!(read(&bytes, 0).unwrap().1, 0);
            for so_far in 1..=10 {
                let hasher = promise.map(|_| hasher(so_far));
                apply(&mut bytes, &record.add(&Checkpoint { offset: so_far, hasher }, None));
                let (terms, offset) = read(&bytes, SIZE).unwrap();
                assert_eq!((offset, terms.promise, terms.size), (so_far, promise, None));
                assert_eq!((terms.name.as_str(), &*terms.note), ("a b", "of several words"));
                assert!(read(&bytes, so_far - 1).is_none());
            }
            assert!(Record::read(&bytes, Content { id: 2, length: SIZE }, None).is_none(), "of another file");
        }
    }

    #[test]
    fn a_record_that_is_torn_anywhere_leaves_an_upload_whole_or_unknown() {
        let (mut bytes, mut record) = begin_made(Some(DIGEST));
        let name = Name::parse(b"a b", NamePolicy::default()).unwrap();
        let before = read(&bytes, SIZE).unwrap();
        let size = record.add_size(7, Some(DIGEST), &name);
        let state = record.add(&Checkpoint { offset: 5, hasher: Some(hasher(5)) }, None);
        [size, state].iter().for_each(|patch| apply(&mut bytes, patch));
        let after = read(&bytes, SIZE).unwrap();
        assert_eq!((after.0.size, after.1, before.0.size, before.1), (Some(7), 5, None, 0));
        for torn in 0..bytes.len() {
            let mut torn_bytes = bytes.clone();
            torn_bytes[torn..].fill(0);
            if let Some((terms, offset)) = read(&torn_bytes, SIZE) {
                assert_eq!(Terms { size: None, ..terms.clone() }, before.0, "{torn}");
                assert!([0, 5].contains(&offset) && [None, Some(7)].contains(&terms.size), "{torn}");
            }
        }
        for at in [0, 3, TERMS_AT, TERMS_AT + 1, bytes.len() - 2] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&changed, SIZE).is_none(), "{at}");
        }
    }
}
