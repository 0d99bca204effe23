//! PLACEHOLDER until bolt is merged
use bytes::Bytes;
use env::MayBlock;
#[derive(Clone, Debug)]
pub enum ReadTx {}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError;
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup { Found(Bytes), Absent, Cold }
impl ReadTx {
    pub fn try_get(&self, _: u64, _: u64, _: bool) -> Result<Lookup, ReadError> { match *self {} }
    pub fn get_revision(&self, _: &MayBlock, _: u64, _: u64, _: bool) -> Result<Option<Bytes>, ReadError> { match *self {} }
    pub fn get_many(&self, _: &MayBlock, _: &[(u64, u64)], _: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), ReadError> { match *self {} }
}
impl std::fmt::Display for ReadError { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("x") } }
