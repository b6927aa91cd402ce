#include "checkpoint.hpp"

#include <nlohmann/json.hpp>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/safetensors.hpp>

#include <outrider/formats/detail/json_text.hpp>

namespace outrider {

namespace {

/// All tensors of a run under the names of the file.
std::vector<std::pair<std::string, at::Tensor>> all_tensors(const std::vector<std::string>& names,
                                                            const OptimiserState& state) {
    std::vector<std::pair<std::string, at::Tensor>> all;
    for (std::size_t i = 0; i < names.size(); ++i) {
        all.emplace_back("weight." + names[i], state.weights[i].detach());
        all.emplace_back("first." + names[i], state.first[i]);
        all.emplace_back("second." + names[i], state.second[i]);
        all.emplace_back("average." + names[i], state.average[i]);
    }
    return all;
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const std::vector<std::string>& names,
                      const OptimiserState& optimiser, const RunState& state) {
    const auto all = all_tensors(names, optimiser);
    std::vector<SafeTensorView> views;
    for (const auto& [name, tensor] : all)
        views.push_back(
            {name,
             SafeDtype::f32,
             tensor.sizes().vec(),
             {static_cast<const std::byte*>(tensor.const_data_ptr()), static_cast<std::size_t>(tensor.nbytes())}});
    const nlohmann::json run = {{"step", state.step},
                                {"anchors", state.anchors},
                                {"seconds", state.seconds},
                                {"skipped_anchors", state.skipped_anchors},
                                {"skipped_steps", state.skipped_steps},
                                {"optimiser_steps", optimiser.steps},
                                {"epoch", state.place.epoch},
                                {"block", state.place.block},
                                {"group", state.place.group},
                                {"left_out", state.left_out}};
    write_safetensors(path, views, {{"run", run.dump()}});
}

void read_checkpoint(const std::filesystem::path& path, const std::vector<std::string>& names,
                     OptimiserState& optimiser) {
    const SafeTensors file = SafeTensors::open(path);
    for (const auto& [name, tensor] : all_tensors(names, optimiser)) {
        const SafeTensor& stored = file.tensor(name);
        require(tensor.sizes() == at::IntArrayRef(stored.shape), ErrorKind::damaged_file,
                "{}: {} has another shape than these options ask for; resume with the options of the first run",
                path.string(), name);
        to_floats(stored, {static_cast<float*>(tensor.mutable_data_ptr()), static_cast<std::size_t>(tensor.numel())});
    }
    optimiser.steps = nlohmann::json::parse(file.metadata().at("run")).at("optimiser_steps").get<std::int64_t>();
}

RunState read_run_state(const std::filesystem::path& path) {
    require(std::filesystem::exists(path), "train: there is no checkpoint to resume from: '{}' is not there",
            path.string());
    const SafeTensors file = SafeTensors::open(path);
    try {
        const auto run = nlohmann::json::parse(file.metadata().at("run"));
        const auto number = [&](const char* key) { return run.at(key).get<std::int64_t>(); };
        RunState state;
        state.step = number("step"), state.anchors = number("anchors");
        state.seconds = run.at("seconds").get<double>();
        state.skipped_anchors = number("skipped_anchors"), state.skipped_steps = number("skipped_steps");
        state.place = {number("epoch"), number("block"), number("group")};
        state.left_out = run.at("left_out").get<decltype(state.left_out)>();
        return state;
    } catch (const std::exception& error) {
        fail(ErrorKind::damaged_file, "{}: this is no checkpoint of a training run ({})", path.string(), error.what());
    }
}

}  // namespace outrider
