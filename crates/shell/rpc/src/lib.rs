//! Connections, gRPC framing and HTTP.
