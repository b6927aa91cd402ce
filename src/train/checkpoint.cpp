#include "checkpoint.hpp"

#include <nlohmann/json.hpp>

#include <outrider/core/error.hpp>
#include <outrider/formats/safetensors.hpp>

#include "formats/json_text.hpp"

namespace outrider {

namespace {

/// All tensors of a run under the names of the file.
std::vector<std::pair<std::string, at::Tensor>> all_tensors(const std::vector<std::string>& names, AdamW& optimiser) {
    std::vector<std::pair<std::string, at::Tensor>> all;
    for (std::size_t i = 0; i < names.size(); ++i) {
        all.emplace_back("weight." + names[i], optimiser.weights()[i].detach());
        all.emplace_back("first." + names[i], optimiser.first_moments()[i]);
        all.emplace_back("second." + names[i], optimiser.second_moments()[i]);
        all.emplace_back("average." + names[i], optimiser.averages()[i]);
    }
    return all;
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const std::vector<std::string>& names, AdamW& optimiser,
                          const RunState& state) {
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
                                {"optimiser_steps", optimiser.steps()},
                                {"epoch", state.place.epoch},
                                {"block", state.place.block},
                                {"group", state.place.group}};
    write_safetensors(path, views, {{"run", run.dump()}});
}

namespace {

RunState read_run(const nlohmann::json& run, AdamW& optimiser) {
    optimiser.set_steps(run.at("optimiser_steps").get<std::int64_t>());
    RunState state;
    state.step = run.at("step").get<std::int64_t>(), state.anchors = run.at("anchors").get<std::int64_t>();
    state.seconds = run.at("seconds").get<double>();
    state.skipped_anchors = run.at("skipped_anchors").get<std::int64_t>(),
    state.skipped_steps = run.at("skipped_steps").get<std::int64_t>();
    state.place = {run.at("epoch").get<std::int64_t>(), run.at("block").get<std::int64_t>(),
                   run.at("group").get<std::int64_t>()};
    return state;
}

}  // namespace

RunState read_checkpoint(const std::filesystem::path& path, const std::vector<std::string>& names, AdamW& optimiser) {
    const SafeTensors file = SafeTensors::open(path);
    for (const auto& [name, tensor] : all_tensors(names, optimiser)) {
        const SafeTensor& stored = file.tensor(name);
        require(tensor.sizes() == at::IntArrayRef(stored.shape),
                "{}: {} has another shape than these options ask for; resume with the options of the first run",
                path.string(), name);
        to_floats(stored, {static_cast<float*>(tensor.mutable_data_ptr()), static_cast<std::size_t>(tensor.numel())});
    }
    const auto record = file.metadata().find("run");
    require(record != file.metadata().end(), "{}: its metadata have no \"run\"; expected a checkpoint of a training", path.string());
    const auto run = detail::parse_json(record->second, path.string());
    try {
        return read_run(run, optimiser);
    } catch (const nlohmann::json::exception& error) {
        fail("{}: run: {}; expected a checkpoint of a training", path.string(), detail::json_reason(error));
    }
}

}  // namespace outrider
