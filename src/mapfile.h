/* mapfile.h - -Map, --print-map, --cref: what went where. */
#ifndef KLD_SRC_MAPFILE_H
#define KLD_SRC_MAPFILE_H

#include "src/base.h"

/* Writes the map and the cross references as options ask. After finish; reports failure. */
void kld_write_map(struct kld_session *ctx);

#endif
