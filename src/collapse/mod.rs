//! collapse
