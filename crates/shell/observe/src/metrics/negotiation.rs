//! Whether a scraper wants gzip.

/// How a page is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// With gzip.
    Gzip,
}

/// The better liked of the two codings that an `Accept-Encoding` header names; as it is, if they are
/// liked the same.
//= client_golang 1.23: internal/github.com/golang/gddo/httputil/negotiate.go
pub(super) fn coding(accepted: &str) -> Coding {
    let liking = |coding: &str| {
        let specs = accepted.split(',').filter_map(|spec| {
            let (name, parameters) = spec.split_once(';').unwrap_or((spec, ""));
            let is_meant = name.trim() == coding || name.trim() == "*";
            is_meant.then(|| quality(parameters))
        });
        specs.fold(None, |best: Option<f32>, q| Some(best.map_or(q, |best| best.max(q))))
    };
    match (liking("gzip"), liking("identity")) {
        (Some(gzip), identity) if gzip > identity.unwrap_or(0.0) => Coding::Gzip,
        _ => Coding::Identity,
    }
}

fn quality(parameters: &str) -> f32 {
    let value = parameters.split(';').find_map(|p| p.trim().strip_prefix("q="));
    value.map_or(1.0, |value| value.trim().parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_prefer_it() {
        for accepted in ["gzip", "deflate, gzip", "gzip;q=0.5", "gzip;q=1.0, identity; q=0.5"] {
            assert_eq!(coding(accepted), Coding::Gzip, "{accepted}");
        }
        for accepted in ["", "identity", "zstd", "*", "gzip;q=0", "identity, gzip", "gzipped"] {
            assert_eq!(coding(accepted), Coding::Identity, "{accepted}");
        }
    }
}
