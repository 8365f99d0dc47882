//! Which environment variable a release reads.

use crate::base::Release;

use super::{AllocConf, ConfError, Warning, legacy, shared, tokens::Tokens};

const CUDA: &str = "PYTORCH_CUDA_ALLOC_CONF";
const HIP: &str = "PYTORCH_HIP_ALLOC_CONF";
const ANY: &str = "PYTORCH_ALLOC_CONF";

impl AllocConf {
    /// Settings of a fresh process of `release` in an environment; `variable` answers for one
    /// variable, `None` if it is not set (an empty one is set).
    ///
    /// Up to 2.9 the wheels for CUDA read `PYTORCH_CUDA_ALLOC_CONF` alone. From 2.10 on the keys of
    /// all accelerators come from the first one set of `PYTORCH_CUDA_ALLOC_CONF`,
    /// `PYTORCH_HIP_ALLOC_CONF`, `PYTORCH_ALLOC_CONF`, and CUDA's own keys from the first one of the
    /// same list without HIP: two variables may each have a part.
    ///
    /// # Errors
    /// When the release refuses one of the strings.
    ///
    /// # Source
    /// `CUDAAllocatorConfig::instance` and `AcceleratorAllocatorConfig::instance`; the recordings
    /// `traces/golden/parser` (last seven lines of each).
    ///
    /// # Examples
    /// ```no_run
    /// use fragsim::{base::Release, models::pytorch::conf::AllocConf};
    /// let (conf, _) = AllocConf::from_env(Release::NEWEST, |name| std::env::var(name).ok())?;
    /// # Ok::<(), fragsim::models::pytorch::conf::ConfError>(())
    /// ```
    pub fn from_env(
        release: Release,
        mut variable: impl FnMut(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Warning>), ConfError> {
        let mut conf = Self::new(release);
        let mut warnings = Vec::new();
        let mut first_of =
            |names: &[&'static str]| names.iter().find_map(|name| Some((*name, variable(name)?)));
        if !release.at_least(10) {
            if let Some((name, text)) = first_of(&[CUDA]) {
                legacy::load_backend(&mut conf, &text);
                let tokens = Tokens::new(&text, release);
                legacy::parse(&mut conf, release, &tokens, &text, &mut warnings)
                    .map_err(|fault| named(fault.into_error(&tokens, &text, release), name))?;
            }
            return Ok((conf, warnings));
        }
        if let Some((name, text)) = first_of(&[CUDA, ANY]) {
            let tokens = Tokens::new(&text, release);
            shared::load_backend(&mut conf, release, &tokens)
                .and_then(|()| shared::parse_cuda(&mut conf, release, &tokens, &mut warnings))
                .map_err(|fault| named(fault.into_error(&tokens, &text, release), name))?;
        }
        if let Some((name, text)) = first_of(&[CUDA, HIP, ANY]) {
            let tokens = Tokens::new(&text, release);
            shared::parse_common(&mut conf, release, &tokens, &text, &mut warnings)
                .map_err(|fault| named(fault.into_error(&tokens, &text, release), name))?;
        }
        Ok((conf, warnings))
    }
}

fn named(error: ConfError, variable: &'static str) -> ConfError {
    ConfError { variable: Some(variable), ..error }
}
