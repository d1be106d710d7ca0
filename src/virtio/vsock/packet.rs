//! The header of a packet. (VIRTIO 1.2, 5.10.6)

/// Bytes of a header; all fields are little-endian.
pub const HEADER: usize = 44;
/// The host's address, VMADDR_CID_HOST. (5.10.4)
pub const HOST_CID: u64 = 2;
/// Every guest's address: a machine has its own device, and no guest reaches another's.
pub const GUEST_CID: u64 = 3;

/// What a connection carries: the `type` of its packets. (5.10.6)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VIRTIO_VSOCK_TYPE_STREAM: bytes.
    Stream = 1,
    /// VIRTIO_VSOCK_TYPE_SEQPACKET: messages.
    Seqpacket = 2,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stream, Self::Seqpacket];

    /// That of a header.
    pub fn of(header: &Header) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == header.kind)
    }
}

/// VIRTIO_VSOCK_F_STREAM: there are streams, as also where no feature is negotiated. (5.10.3)
pub const F_STREAM: u64 = 1 << 0;
/// VIRTIO_VSOCK_F_SEQPACKET: there is SOCK_SEQPACKET, too.
pub const F_SEQPACKET: u64 = 1 << 1;

/// What a packet is there for. (5.10.6)
pub mod op {
    /// VIRTIO_VSOCK_OP_REQUEST: connect.
    pub const REQUEST: u16 = 1;
    /// VIRTIO_VSOCK_OP_RESPONSE: connected.
    pub const RESPONSE: u16 = 2;
    /// VIRTIO_VSOCK_OP_RST: there is no connection (any more).
    pub const RST: u16 = 3;
    /// VIRTIO_VSOCK_OP_SHUTDOWN: one or both directions are over, by the flags.
    pub const SHUTDOWN: u16 = 4;
    /// VIRTIO_VSOCK_OP_RW: data.
    pub const RW: u16 = 5;
    /// VIRTIO_VSOCK_OP_CREDIT_UPDATE: the sender's room.
    pub const CREDIT_UPDATE: u16 = 6;
    /// VIRTIO_VSOCK_OP_CREDIT_REQUEST: what is your room?
    pub const CREDIT_REQUEST: u16 = 7;
}

/// VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE: the sender takes nothing more. (5.10.6.5)
pub const NO_RECEIVE: u32 = 1;
/// VIRTIO_VSOCK_SHUTDOWN_F_SEND: the sender sends nothing more.
pub const NO_SEND: u32 = 2;

/// VIRTIO_VSOCK_SEQ_EOM: these are a message's last bytes. (5.10.6.6.2)
pub const END_OF_MESSAGE: u32 = 1;

/// struct virtio_vsock_hdr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    /// Bytes behind the header.
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    /// The sender's room for a connection, in bytes.
    pub buf_alloc: u32,
    /// Bytes that have left that room since the connection began, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// The header in these bytes.
    pub fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at + 2)) << 16 | u32::from(half(at));
        let long = |at: usize| u64::from(word(at + 4)) << 32 | u64::from(word(at));
        Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    /// The header as bytes.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.src_cid.to_le_bytes());
        put(&self.dst_cid.to_le_bytes());
        put(&self.src_port.to_le_bytes());
        put(&self.dst_port.to_le_bytes());
        put(&self.len.to_le_bytes());
        put(&self.kind.to_le_bytes());
        put(&self.op.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buf_alloc.to_le_bytes());
        put(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The answer to a packet that belongs to no connection. (5.10.6.6)
    pub fn refusal(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let bytes: [u8; HEADER] = std::array::from_fn(|at| at as u8 + 1);
        let header = Header::from_bytes(&bytes);
        assert_eq!(header.src_cid, 0x0807_0605_0403_0201);
        assert_eq!((header.len, header.kind, header.op), (0x1c1b_1a19, 0x1e1d, 0x201f));
        assert_eq!(header.fwd_cnt, 0x2c2b_2a29);
        assert_eq!(header.to_bytes(), bytes);
    }
}
