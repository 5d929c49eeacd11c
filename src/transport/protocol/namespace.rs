//! The namespaces of the hub.

/// A namespace. Both behave the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// `/`, the default.
    Root,
    /// `/socket.io/`: existing front ends call `io("http://host/socket.io/")`, and the official client reads the path of
    /// that URL as a namespace.
    SocketIo,
}

impl Namespace {
    /// Every namespace, in the order of [`Self::index`].
    pub(crate) const ALL: [Self; 2] = [Self::Root, Self::SocketIo];

    /// The name as packets spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::SocketIo => "/socket.io/",
        }
    }

    /// The place in arrays with one element for each namespace.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The namespace that packets spell `name`.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|namespace| namespace.name() == name)
    }
}
