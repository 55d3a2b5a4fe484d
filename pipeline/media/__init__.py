"""Pictures, clips and their sound on disk → arrays, safely: no file may crash, hang or exhaust who reads it.

Each file is judged by its bytes, never by its name. Only formats of two short lists are opened, sizes are checked in
the header before anything is unpacked, and a file that is cut short is refused rather than half read. Every refusal is
a MediaError; what stands before its colon is one of few kinds, fit for counting.
"""
