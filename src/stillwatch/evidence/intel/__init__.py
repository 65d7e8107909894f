"""What passes between providers: fingerprints of a campaign's wording, made, signed, read and compared."""
