//! A copy past the caches, for bytes that the device reads next and the processor does not.

/// Copies all of `from` to `to`. On x86-64 the stores go past the caches: the lines of `to` are not fetched first,
/// and what the caches hold stays. Elsewhere it is an ordinary copy.
///
/// # Panics
/// If the lengths differ.
pub(super) fn copy(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a copy between different lengths");
    let head = to.as_ptr().align_offset(LINE).min(to.len());
    let lines = (to.len() - head) / LINE * LINE;
    let (to_head, to) = to.split_at_mut(head);
    let (to_lines, to_rest) = to.split_at_mut(lines);
    let (from_head, from) = from.split_at(head);
    let (from_lines, from_rest) = from.split_at(lines);
    to_head.copy_from_slice(from_head);
    whole_lines(to_lines, from_lines);
    to_rest.copy_from_slice(from_rest);
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// `to` starts on a line's boundary and both hold the same number of whole lines.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn whole_lines(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let lines = to.chunks_exact_mut(LINE).zip(from.chunks_exact(LINE));
    for (to, from) in lines {
        let to = to.as_mut_ptr().cast::<__m128i>();
        let from = from.as_ptr().cast::<__m128i>();
        // SAFETY: both are 64 bytes long, that is four vectors, and `to` is aligned to 64 bytes, more than the 16
        // that a streaming store needs. Every x86-64 processor has these instructions.
        unsafe {
            let first = _mm_loadu_si128(from);
            let second = _mm_loadu_si128(from.add(1));
            let third = _mm_loadu_si128(from.add(2));
            let fourth = _mm_loadu_si128(from.add(3));
            _mm_stream_si128(to, first);
            _mm_stream_si128(to.add(1), second);
            _mm_stream_si128(to.add(2), third);
            _mm_stream_si128(to.add(3), fourth);
        }
    }
    // SAFETY: every x86-64 processor has it. Streaming stores are not ordered with what follows otherwise.
    unsafe { _mm_sfence() };
}

#[cfg(any(not(target_arch = "x86_64"), miri))]
fn whole_lines(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_and_length_is_copied_and_nothing_else() {
        let source: Vec<u8> = (0..1000_u32).map(|n| (n % 251) as u8).collect();
        for start in [0, 1, 15, 63, 64] {
            for len in [0, 1, 63, 64, 65, 127, 128, 500] {
                for from in [0, 3, 64] {
                    let mut target = vec![0xee; 700];
                    copy(&mut target[start..start + len], &source[from..from + len]);
                    assert_eq!(target[start..start + len], source[from..from + len]);
                    let untouched = target[..start].iter().chain(&target[start + len..]);
                    assert!(untouched.copied().all(|byte| byte == 0xee));
                }
            }
        }
    }
}
