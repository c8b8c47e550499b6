"""The teacher cache: what frozen networks say of the training images, kept from epoch to epoch and from run to run.

`replay` stands between a stage and its frozen networks; `fingerprint` says whose outputs they are, of which images;
`codec` how a tap is stored; `store` holds the files, with a `checksum` of every row, and `layout` knows what they look
like and how much room they take. `plan` says without torch what a config caches and what is wrong with it, `verbs` are
`distill cache list|verify|clear`.
"""
