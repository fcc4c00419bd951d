"""The record: lines in a hash chain, their tree, proofs, verification, and the statement of a period; all pure."""
