//! UEFI variables as an image carries them: what its instances' flash memory begins as.

use crate::error::{Code, Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What erased flash memory reads as: most of it.
const ERASED: u8 = 0xff;
/// Most bytes of flash memory for variables: OVMF's has 528 KiB.
const MAX_LEN: usize = 1 << 20;
/// Most bytes of it that are not erased: an image's record has to stay one that others read.
const MAX_CONTENT: usize = 128 << 10;
/// So many erased bytes end a run of others: its offset and length take as many.
const GAP: usize = 8;

/// The content of flash memory, in base64: its length, and each run of bytes that are not erased,
/// with its offset and length. Numbers are little-endian and have four bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UefiVariables(String);

impl UefiVariables {
    /// Of these bytes.
    ///
    /// # Errors
    /// They are more than an image can carry.
    pub fn of(bytes: &[u8]) -> Result<Self> {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let mut packed = number(bytes.len()).to_vec();
        let mut at = 0;
        while let Some(start) = position(bytes, at, |byte| byte != ERASED) {
            let end = run_end(bytes, start);
            packed.extend(number(start));
            packed.extend(number(end - start));
            packed.extend(&bytes[start..end]);
            at = end;
        }
        if bytes.len() > MAX_LEN || packed.len() > MAX_CONTENT {
            return Err(Error::failure(format!(
                "UEFI variables of {} KiB are more than an image carries",
                packed.len() >> 10
            )));
        }
        Ok(Self(STANDARD.encode(packed)))
    }

    /// The bytes.
    ///
    /// # Errors
    /// It is damaged.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let damaged = || {
            Error::refused(
                Code::IncorrectState,
                "the image's UEFI variables are damaged; copy it anew",
            )
        };
        let fits = self.0.len() <= MAX_CONTENT * 2;
        let packed = fits.then(|| STANDARD.decode(&self.0).ok()).flatten().ok_or_else(damaged)?;
        unpack(&packed).ok_or_else(damaged)
    }
}

fn position(bytes: &[u8], from: usize, is: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.iter().skip(from).position(|byte| is(*byte)).map(|at| from + at)
}

/// Where the run that begins at `start` ends.
fn run_end(bytes: &[u8], start: usize) -> usize {
    let mut end = start;
    while let Some(next) = position(bytes, end, |byte| byte != ERASED) {
        if next - end > GAP && end > start {
            break;
        }
        end = position(bytes, next, |byte| byte == ERASED).unwrap_or(bytes.len());
    }
    end
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut rest = packed;
    let number = |rest: &mut &[u8]| {
        let (number, after) = rest.split_first_chunk::<4>()?;
        *rest = after;
        usize::try_from(u32::from_le_bytes(*number)).ok()
    };
    let len = number(&mut rest).filter(|len| *len <= MAX_LEN)?;
    let mut bytes = vec![ERASED; len];
    while !rest.is_empty() {
        let (start, run) = (number(&mut rest)?, number(&mut rest)?);
        let (content, after) = rest.split_at_checked(run)?;
        bytes.get_mut(start..start.checked_add(run)?)?.copy_from_slice(content);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            (1usize..300).prop_map(|len| vec![ERASED; len]),
            prop::collection::vec(any::<u8>(), 1..40),
        ];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_carried_is_what_was_there(bytes in content()) {
            let carried = UefiVariables::of(&bytes).unwrap();
            prop_assert_eq!(carried.bytes().unwrap(), bytes);
        }

        #[test]
        fn anybodys_bytes_are_refused_or_are_variables(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = UefiVariables(STANDARD.encode(bytes)).bytes();
        }
    }

    #[test]
    fn erased_memory_takes_no_room_and_too_much_content_is_refused() {
        let mut bytes = vec![ERASED; 528 << 10];
        bytes[1000] = 1;
        assert!(UefiVariables::of(&bytes).unwrap().0.len() < 32);
        assert!(UefiVariables::of(&vec![0; 528 << 10]).is_err());
        assert!(UefiVariables::of(&vec![ERASED; MAX_LEN + 1]).is_err());
        for damaged in ["?".to_owned(), STANDARD.encode([0xff; 4]), STANDARD.encode([1, 0, 0])] {
            assert!(UefiVariables(damaged).bytes().is_err());
        }
    }
}
