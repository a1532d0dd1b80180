//! Limits that a device is asked for, beyond what its target needs.

use ublk_sys::{
    UBLK_MIN_SEGMENT_SIZE, UBLK_PARAM_TYPE_DMA_ALIGN, UBLK_PARAM_TYPE_SEGMENT, ublk_param_segment,
    ublk_params,
};

use crate::error::{Code, Error, Result};

/// How clients' requests are cut up, and what memory they may lie in. Each can only be narrower
/// than what the target needs; absent: what the target needs (Linux 6.15). All but the count in
/// bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What direct I/O's memory must be aligned to: a power of two, at most 4096.
    pub dma_alignment: Option<u32>,
    /// Most segments of a request: 1 to 65535.
    pub max_segments: Option<u16>,
    /// The longest segment: at least 4096.
    pub max_segment_size: Option<u32>,
    /// No segment crosses a multiple of it: a power of two, at least 4096.
    pub segment_boundary: Option<u64>,
}

impl Limits {
    /// Checks what can be checked without the kernel (`ublk_validate_params`).
    ///
    /// # Errors
    /// [`Code::InvalidArgument`], naming the limit, its value and its range.
    pub(super) fn validate(&self) -> Result<()> {
        let page = UBLK_MIN_SEGMENT_SIZE;
        let refuse = |message| Err(Error::new(Code::InvalidArgument, message));
        if let Some(bytes) = self.dma_alignment
            && !(bytes.is_power_of_two() && bytes <= page)
        {
            return refuse(format!(
                "limits.dmaAlignment is {bytes}; it must be a power of two, at most {page}"
            ));
        }
        if self.max_segments == Some(0) {
            return refuse("limits.maxSegments is 0; it must be from 1 to 65535".into());
        }
        if let Some(bytes) = self.max_segment_size.filter(|&bytes| bytes < page) {
            return refuse(format!(
                "limits.maxSegmentSize is {bytes}; it must be at least {page} bytes"
            ));
        }
        if let Some(bytes) = self.segment_boundary
            && !(bytes.is_power_of_two() && bytes >= page.into())
        {
            return refuse(format!(
                "limits.segmentBoundary is {bytes}; it must be a power of two, at least {page}"
            ));
        }
        Ok(())
    }

    /// Makes sure that the kernel has kept what [`narrow`](Self::narrow) has asked for: those
    /// before 6.15 leave out what they do not know.
    ///
    /// # Errors
    /// [`Code::Unsupported`].
    pub(super) fn confirm(asked: &ublk_params, given: &ublk_params) -> Result<()> {
        let kinds = UBLK_PARAM_TYPE_DMA_ALIGN | UBLK_PARAM_TYPE_SEGMENT;
        if asked.types & !given.types & kinds == 0 {
            return Ok(());
        }
        let message = "this kernel's ublk driver takes no limits";
        Err(Error::new(Code::Unsupported, message)
            .hint("Linux 6.15 does; leave the option limits out"))
    }

    /// Narrows parameters that a target has set.
    pub(super) fn narrow(&self, params: &mut ublk_params) {
        let types = params.types;
        let has = |kind: u32| types & kind != 0;
        if let Some(bytes) = self.dma_alignment {
            let mask = bytes.saturating_sub(1);
            let before = if has(UBLK_PARAM_TYPE_DMA_ALIGN) { params.dma.alignment } else { 0 };
            params.types |= UBLK_PARAM_TYPE_DMA_ALIGN;
            params.dma.alignment = before.max(mask);
        }
        if (self.max_segments, self.max_segment_size, self.segment_boundary) == (None, None, None) {
            return;
        }
        let none = ublk_param_segment {
            seg_boundary_mask: u64::MAX,
            max_segment_size: u32::MAX,
            max_segments: u16::MAX,
            ..Default::default()
        };
        let before = if has(UBLK_PARAM_TYPE_SEGMENT) { params.seg } else { none };
        let mask = self.segment_boundary.map_or(u64::MAX, |bytes| bytes.saturating_sub(1));
        params.types |= UBLK_PARAM_TYPE_SEGMENT;
        params.seg = ublk_param_segment {
            seg_boundary_mask: before.seg_boundary_mask.min(mask),
            max_segment_size: before.max_segment_size.min(self.max_segment_size.unwrap_or(!0)),
            max_segments: before.max_segments.min(self.max_segments.unwrap_or(!0)),
            ..before
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Limits = Limits {
        dma_alignment: Some(4096),
        max_segments: Some(32),
        max_segment_size: Some(32 << 10),
        segment_boundary: Some(4096),
    };

    #[test]
    fn limits_narrow_what_the_target_needs_and_never_widen_it() {
        let mut free = ublk_params::default();
        Limits::default().narrow(&mut free);
        assert_eq!(free.types, 0);
        ALL.narrow(&mut free);
        assert_eq!(free.types, UBLK_PARAM_TYPE_DMA_ALIGN | UBLK_PARAM_TYPE_SEGMENT);
        assert_eq!((free.dma.alignment, free.seg.seg_boundary_mask), (4095, 4095));
        assert_eq!((free.seg.max_segments, free.seg.max_segment_size), (32, 32 << 10));

        let narrow = free;
        let wide = Limits {
            dma_alignment: Some(512),
            max_segments: Some(64),
            max_segment_size: Some(64 << 10),
            segment_boundary: Some(1 << 32),
        };
        wide.narrow(&mut free);
        assert_eq!(free.dma.alignment, narrow.dma.alignment);
        assert_eq!(free.seg.seg_boundary_mask, narrow.seg.seg_boundary_mask);
        assert_eq!(free.seg.max_segments, narrow.seg.max_segments);
        assert_eq!(free.seg.max_segment_size, narrow.seg.max_segment_size);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_before() {
        assert!(ALL.validate().is_ok());
        type Change = fn(&mut Limits);
        let changes: [Change; 6] = [
            |limits| limits.dma_alignment = Some(8192),
            |limits| limits.dma_alignment = Some(48),
            |limits| limits.max_segments = Some(0),
            |limits| limits.max_segment_size = Some(512),
            |limits| limits.segment_boundary = Some(512),
            |limits| limits.segment_boundary = Some(5000),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut limits = ALL;
            change(&mut limits);
            assert!(limits.validate().is_err(), "change {at}");
        }
    }
}
