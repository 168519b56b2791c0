//! Passwords become SCRAM verifiers before they reach any file.

use std::io::{IsTerminal, Read};

use crate::command::Failure;

/// CISA I.B.1: where there is no second factor, 15 characters or more.
const MIN_LENGTH: usize = 15;

/// The verifier of a password that is long enough.
fn verifier(password: &str) -> Result<String, Failure> {
    let length = password.chars().count();
    if length < MIN_LENGTH {
        return Err(Failure::refused(format!(
            "the password has {length} characters; it needs {MIN_LENGTH} or more"
        ))
        .hint("CISA's security requirements, I.B.1, ask for 15 where there is no second factor"));
    }
    Ok(short_verifier(password))
}

/// The verifier of any password; for the demo only, whose passwords everybody knows.
pub(crate) fn short_verifier(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

/// `ringfence password`.
pub(crate) fn run() -> Result<(), Failure> {
    let password = if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ")?;
        if rpassword::prompt_password("Again: ")? != first {
            return Err(Failure::refused("the two differ"));
        }
        first
    } else {
        let mut text = String::new();
        std::io::stdin().take(4096).read_to_string(&mut text)?;
        text.trim_end_matches(['\r', '\n']).to_owned()
    };
    println!("{}", verifier(&password)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fourteen_characters_are_refused_and_fifteen_are_not() {
        assert!(verifier("äöüäöüäöüäöüäö").is_err());
        assert!(verifier("äöüäöüäöüäöüäöü").is_ok());
    }
}
