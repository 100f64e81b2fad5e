// Which dropout of the model a mask belongs to: the embedding is 0, a layer has three.
#ifndef HANLIN_MODEL_TRAIN_DROPOUT_SITES_H_
#define HANLIN_MODEL_TRAIN_DROPOUT_SITES_H_

#include <cstdint>

namespace hanlin {

inline constexpr uint32_t kEmbeddingSite = 0;
inline uint32_t AttentionSite(int layer) { return 1 + 3 * static_cast<uint32_t>(layer); }
inline uint32_t AttentionOutSite(int layer) { return 2 + 3 * static_cast<uint32_t>(layer); }
inline uint32_t MlpSite(int layer) { return 3 + 3 * static_cast<uint32_t>(layer); }

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_DROPOUT_SITES_H_
