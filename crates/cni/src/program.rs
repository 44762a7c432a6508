//! What makes a program of a plugin.

pub use ferrule_allocator::Allocator;

/// The whole of a plugin's program: `main` that [runs](crate::run) the plugin, and the [`Allocator`].
///
/// ```
/// # use std::path::Path;
/// # use cni::{AddResult, Attachment, Failure, Plugin, Request, Target, ValidAttachments};
/// struct Hello;
/// # impl Plugin for Hello {
/// #     fn name(&self) -> &'static str { "hello" }
/// #     fn add(&self, _: &Request, _: &Target) -> Result<AddResult, Failure> { Ok(AddResult::default()) }
/// #     fn del(&self, _: &Request, _: &Attachment, _: Option<&Path>) -> Result<(), Failure> { Ok(()) }
/// #     fn check(&self, _: &Request, _: &Target) -> Result<(), Failure> { Ok(()) }
/// #     fn gc(&self, _: &Request, _: &ValidAttachments) -> Result<(), Failure> { Ok(()) }
/// #     fn status(&self, _: &Request) -> Result<(), Failure> { Ok(()) }
/// # }
/// cni::main!(Hello);
/// ```
#[macro_export]
macro_rules! main {
    ($plugin:expr) => {
        #[global_allocator]
        static ALLOCATOR: $crate::Allocator = $crate::Allocator::new();

        fn main() -> ::std::process::ExitCode {
            $crate::run(&$plugin)
        }
    };
}
