//! A state as a byte stream: exactly what bbolt's `Tx.WriteTo` writes.
//= bbolt 1.5.0: tx.go#Tx.WriteTo

use env::{Access, MayBlock};

use crate::error::ReadError;
use crate::meta::{META_PAGE_LEN, Meta};
use crate::read::ReadTx;

impl ReadTx {
    /// Length of the stream, bytes.
    #[must_use]
    pub fn file_len_of_snapshot(&self) -> u64 {
        self.size_bytes()
    }

    /// Fills `buf` with the stream's bytes from `offset`.
    ///
    /// # Errors
    /// A failed disk, also if `offset + buf.len()` exceeds the stream and the file.
    ///
    /// # Panics
    /// If the range exceeds the stream.
    pub fn read_snapshot(
        &self,
        may: &MayBlock,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        let end = offset.checked_add(buf.len() as u64);
        assert!(
            end.is_some_and(|end| end <= self.file_len_of_snapshot()),
            "the stream has {} bytes",
            self.file_len_of_snapshot()
        );
        let source = &self.state.source;
        let metas = 2 * source.page_size as u64;
        let split = metas.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (head, body) = buf.split_at_mut(split);
        if !head.is_empty() {
            let pages = self.meta_pages();
            head.copy_from_slice(&pages[offset as usize..offset as usize + head.len()]);
        }
        if !body.is_empty() {
            source.file.read_at(may, body, offset + split as u64, Access::ScanOnce)?;
        }
        Ok(())
    }

    /// Page 0 is this state's meta, page 1 the same one transaction older.
    fn meta_pages(&self) -> Vec<u8> {
        let (meta, ps) = (self.state.meta, self.state.source.page_size);
        let mut pages = vec![0; 2 * ps];
        debug_assert!(ps >= META_PAGE_LEN);
        meta.write(0, &mut pages);
        let older = Meta { txid: meta.txid.wrapping_sub(1), ..meta };
        older.write(1, &mut pages[ps..]);
        pages
    }
}
