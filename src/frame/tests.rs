use super::{fuzz::fuzz_frames, *};

fn decode_all(limit: usize, mut input: &[u8]) -> (Vec<Bytes>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(limit);
    let mut frames = Vec::new();
    loop {
        match decoder.next_frame(&mut input) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

#[test]
fn frame_split_at_every_byte_is_decoded_once() {
    let body: Vec<u8> = (0..200).collect();
    let frame = encode(&body);
    for cut in 0..=frame.len() {
        let mut decoder = FrameDecoder::new(1_000);
        let mut found = Vec::new();
        for mut piece in [&frame[..cut], &frame[cut..]] {
            while let Some(body) = decoder.next_frame(&mut piece).unwrap() {
                found.push(body);
            }
            assert!(piece.is_empty());
        }
        assert_eq!(found, [Bytes::from(body.clone())], "cut at {cut}");
        assert!(!decoder.is_mid_frame());
    }
}

#[test]
fn several_frames_in_one_slice_come_out_in_order() {
    let mut stream = Vec::new();
    for body in [&b"a"[..], b"", b"ccc"] {
        stream.extend_from_slice(&encode(body));
    }
    let (frames, error) = decode_all(10, &stream);
    assert_eq!(frames, [&b"a"[..], b"", b"ccc"]);
    assert_eq!(error, None);
}

#[test]
fn body_at_the_limit_passes_and_one_above_is_refused_before_its_first_byte() {
    let (frames, error) = decode_all(100, &encode(&[7; 100]));
    assert_eq!((frames.len(), error), (1, None));

    let (frames, error) = decode_all(100, &[101]);
    assert!(frames.is_empty());
    assert_eq!(error, Some(FrameError::TooLarge { declared: 101, limit: 100 }));
}

#[test]
fn announced_length_alone_reserves_nothing() {
    let mut decoder = FrameDecoder::new(usize::MAX);
    let mut header = Vec::new();
    put_varint(&mut header, 1 << 44);
    assert_eq!(decoder.next_frame(&mut &header[..]), Ok(None));
    assert_eq!(decoder.held(), 0);
    assert!(decoder.is_mid_frame());
}

#[test]
fn largest_varint_is_a_length_and_one_bit_more_is_none() {
    let mut largest = Vec::new();
    put_varint(&mut largest, u64::MAX);
    assert_eq!(largest.len(), MAX_VARINT);
    let declared = u64::MAX;
    assert_eq!(decode_all(5, &largest).1, Some(FrameError::TooLarge { declared, limit: 5 }));
    largest[MAX_VARINT - 1] = 2;
    assert_eq!(decode_all(5, &largest).1, Some(FrameError::BadLength));
    assert_eq!(decode_all(5, &[0x80; 10]).1, Some(FrameError::BadLength));
    assert_eq!(decode_all(5, &[0x80; 9]).1, None);
}

#[test]
fn error_stays_until_reset() {
    let mut decoder = FrameDecoder::new(1);
    assert!(decoder.next_frame(&mut &[9_u8][..]).is_err());
    assert!(decoder.next_frame(&mut &encode(b"x")[..]).is_err());
    decoder.reset();
    assert_eq!(decoder.next_frame(&mut &encode(b"x")[..]), Ok(Some(Bytes::from_static(b"x"))));
}

#[test]
fn varint_len_counts_what_put_varint_writes() {
    for shift in 0..64 {
        for value in [(1_u64 << shift) - 1, 1 << shift] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }
}

#[test]
fn fuzz_entry_survives_its_seeds() {
    for seed in [
        &b""[..],
        b"\x00\x00",
        b"\x03abc\x01x",
        b"\xac\x02ab",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        fuzz_frames(seed);
    }
    let long = [encode(&[1; 299]).to_vec(), encode(&[2; 301]).to_vec()].concat();
    fuzz_frames(&long);
}
