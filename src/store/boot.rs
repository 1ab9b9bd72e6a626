//! The id of this boot of the system, which tells whether files were left by a server of the same boot.

use std::fs;
use std::sync::OnceLock;

/// Where the system tells it (proc_sys_kernel(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The length of such an id, in bytes: a UUID in text.
const BOOT_ID_BYTES: usize = 36;

/// The id, if the system has one. It is read once: later the sandbox forbids it.
pub(super) fn boot_id() -> Option<&'static str> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    ID.get_or_init(|| fs::read_to_string(BOOT_ID).ok().and_then(|text| parse(&text))).as_deref()
}

fn parse(text: &str) -> Option<String> {
    let id = text.trim();
    let is_id = id.len() == BOOT_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_and_nothing_else() {
        let id = "5f3a1c1e-0b9a-4b5c-9a55-2f3fb0a0c0de";
        assert_eq!(parse(&format!("{id}\n")).as_deref(), Some(id));
        for text in ["", "\n", "5f3a1c1e", &id.replace('-', "/"), &format!("{id}0")] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
