//! Everything that a client can make a connection hold or do, by name.

/// Limits of a connection. A client that keeps the windows and is not hostile meets none of the
/// defaults but [`Limits::concurrent_streams`], where that is set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams that are open at once; the next is refused with REFUSED_STREAM. `u32::MAX`: any
    /// number, and the client is not told one.
    pub concurrent_streams: u32,
    /// Whether what [`Protocol::judge`](crate::Protocol::judge) would have refused is served: the
    /// layer above has another use for it.
    pub serves_refused: bool,
    /// Bytes of a request that a client may send on one stream before they are used
    /// ([`Connection::release`](crate::Connection::release)). At least 65,535.
    pub stream_window: u32,
    /// Bytes that a client may send on all streams together before they are used: what the layer
    /// above holds of requests and has not released is at most twice this. At least 65,535.
    pub connection_window: u32,
    /// Bytes of a request's decoded fields, 32 more for each: beyond, its stream is reset with
    /// FRAME_SIZE_ERROR.
    //= grpc-go 1.82: internal/transport/defaults.go#defaultServerMaxHeaderListSize
    pub header_list_bytes: usize,
    /// Bytes of a header block as it is sent, which may be all size updates: beyond, the connection
    /// ends.
    pub header_block_bytes: usize,
    /// CONTINUATION frames of one block, besides one for each KiB of it: beyond, the connection
    /// ends. Guards against floods of empty and tiny ones.
    pub continuation_frames: usize,
    /// DATA frames in a row, of any stream, that neither carry a byte nor end a stream: beyond, the
    /// connection ends.
    pub empty_data_frames: u32,
    /// Bytes in [`Connection::out`](crate::Connection::out) from which on no frame is taken off the
    /// input and no waiting answer is continued until the driver has written. Replies to PING,
    /// SETTINGS and errors count: a flood of those stops itself.
    pub unsent_bytes: usize,
    /// Bytes of answers that wait for the client's windows, from which on new requests are refused
    /// with REFUSED_STREAM. With what is unsent added, also the bytes from which on the layer above
    /// makes no more answers to calls that wait ([`Connection::takes_answers`]
    /// (crate::Connection::takes_answers)), so that what a client can make us hold does not grow
    /// with the calls that it began.
    pub held_bytes: usize,
    /// Calls that were reset while the layer above still works on them
    /// ([`Connection::abandoned`](crate::Connection::abandoned)), from which on no frame is taken
    /// off the input until some have ended. Bounds what opening and resetting streams at once
    /// (rapid reset), or making the server reset them, costs.
    pub abandoned_calls: usize,
    /// Whether a request whose only DATA frame has come with its headers is told in one event, and
    /// needs no place in the table of streams if it is answered at once.
    pub whole_requests: bool,
    /// Header blocks that are kept beside what they mean, because clients without deadlines send
    /// the same block each time; 0: none.
    pub cached_blocks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_streams: u32::MAX,
            serves_refused: false,
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            header_list_bytes: 16 << 20,
            header_block_bytes: 16 << 20,
            continuation_frames: 16,
            empty_data_frames: 1_000,
            unsent_bytes: 256 << 10,
            held_bytes: 64 << 20,
            abandoned_calls: 1_000,
            whole_requests: true,
            cached_blocks: 4,
        }
    }
}
