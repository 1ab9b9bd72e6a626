//! `Upload-Metadata`, in which a client of tus says the name of its file: `KEY BASE64,KEY BASE64`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::head::bad;
use crate::proto::Refusal;

/// The longest value, in bytes: a name of 255 bytes takes 340, programs add a type and a path.
const MAX_BYTES: usize = 4096;

/// The name of the file. Most clients call it `filename`, some `name`. `None`: it is not there.
///
/// # Errors
/// The value is not of this form, or has the name twice.
pub(super) fn file_name(value: &str) -> Result<Option<Vec<u8>>, Refusal> {
    let words = || bad("Upload-Metadata is KEY BASE64,KEY BASE64, of at most 4096 bytes");
    if value.len() > MAX_BYTES || value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(words());
    }
    let mut found: [Option<Vec<u8>>; 2] = [None, None];
    for pair in value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = STANDARD.decode(value.trim()).map_err(|_| words())?;
        if let Some(index) = ["filename", "name"].iter().position(|known| *known == key)
            && found[index].replace(value).is_some()
        {
            return Err(words());
        }
    }
    let [file_name, name] = found;
    Ok(file_name.or(name))
}
