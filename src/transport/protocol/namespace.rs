//! The namespaces of the hub.

/// A namespace. Both behave the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// `/`, the default.
    Root,
    /// `/socket.io/`: existing front ends call `io("http://host/socket.io/")`, and the official client reads the path of
    /// that URL as a namespace.
    SocketIo,
}

impl Namespace {
    /// Every namespace, in the order of [`Self::index`].
    pub const ALL: [Self; 2] = [Self::Root, Self::SocketIo];

    /// The name as packets spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::SocketIo => "/socket.io/",
        }
    }

    /// The place in arrays with one element for each namespace.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The namespace that packets spell `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|namespace| namespace.name() == name)
    }
}
