//! `intake token`: makes a token, and the line for the server's token file.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use intake::access::check_name;
use intake::proto::Credential;
use intake::units::{Count, Size};
use rustix::rand::{GetRandomFlags, getrandom};

use super::exit::Exit;
use super::output::{Output, complain};

/// Bits that nobody can guess, however long he tries.
const TOKEN_BYTES: usize = 32;

/// Make a token for a client, and the line for the server's token file
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    the token and the line are printed
  1    they could not be made or printed
  2    usage error

The first line of the output is the token, for the client: nobody can show it again. The second one is for the file that
`intake serve --token-file FILE` reads, also at SIGHUP. It has the token's digest, so the file need not be secret.
  intake token alice | tee /dev/tty | tail -n 1 >> tokens")]
pub struct Token {
    /// Name of the client, for the log: 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(value_parser = parse_name)]
    name: String,
    /// Size of the largest file that is taken with it
    #[arg(long, value_name = "SIZE")]
    max_file_size: Option<Size>,
    /// Bytes of files that may be stored with it in a day
    #[arg(long, value_name = "SIZE")]
    per_day: Option<Size>,
    /// Files that may be stored with it in a day
    #[arg(long, value_name = "N")]
    uploads_per_day: Option<Count>,
}

fn parse_name(typed: &str) -> Result<String, String> {
    check_name(typed).map(|()| typed.into())
}

impl Token {
    /// Prints the token and the line.
    pub fn run(self) -> Exit {
        let token = match random_token() {
            Ok(token) => token,
            Err(error) => {
                complain(format_args!("the system gives no random bytes: {error}"));
                return Exit::Failed;
            }
        };
        let mut output = Output::default();
        output.say(&token);
        output.say(self.line(&token));
        output.exit(Exit::Done)
    }

    fn line(&self, token: &str) -> String {
        let mut line = format!("{} {}", self.name, Credential::of(token.as_bytes()).to_hex());
        let mut limit = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                line.extend([" ", key, "=", &value]);
            }
        };
        limit("max-file-size", self.max_file_size.map(|size| size.to_string()));
        limit("per-day", self.per_day.map(|size| size.to_string()));
        limit("uploads-per-day", self.uploads_per_day.map(|count| count.to_string()));
        line
    }
}

fn random_token() -> Result<String, rustix::io::Errno> {
    let mut bytes = [0; TOKEN_BYTES];
    let mut filled = 0;
    while filled < TOKEN_BYTES {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
