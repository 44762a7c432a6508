//! Container networking on Linux.
